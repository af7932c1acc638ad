"""Bodies of requests that are documents of a form."""

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from services.common.request_body import BodyError, read_body
from services.publisher.handlers.refusal import RequestRefusedError

__all__ = ["read_document"]

_Body = TypeVar("_Body", bound=BaseModel)


async def read_document(request: web.Request, model: type[_Body], *, limit: int, form: str = "") -> _Body:
    """Read a body; an empty one is an empty document.

    Parameters
    ----------
    model
        Its form.
    limit
        Its largest size, in bytes.
    form
        What is added to an error to tell the form.

    Raises
    ------
    RequestRefusedError
        It is no such document, or did not arrive.
    """
    try:
        return model.model_validate_json(await read_body(request, what="the body", limit=limit) or b"{}")
    except BodyError as error:
        raise RequestRefusedError(error.status, str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise RequestRefusedError(400, f"{place}: {first['msg']}{form}") from None
