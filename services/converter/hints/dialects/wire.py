"""What the dialects' modules share: reading JSON objects of which little is of interest."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.common.errors import InvalidValueError
from services.converter.hints.errors import PayloadError
from services.converter.hints.model import Event, Reading, name_of, read_hint

__all__ = ["validated", "whole"]

_SHOWN_PROBLEMS = 5
_Form = TypeVar("_Form", bound=BaseModel)


def validated(form: type[_Form], document: Mapping[str, Any], what: str) -> _Form:
    """Read a document.

    Raises
    ------
    PayloadError
        It is not of the form.
    """
    try:
        return form.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False, include_context=False)[:_SHOWN_PROBLEMS]
        )
        raise PayloadError(f"the body is not {what}: {problems}") from None


def whole(registry: str, named: Iterable[tuple[str, str | None]], identity: str | None = None) -> Reading:
    """Return the reading of a delivery that announces repositories and their tags.

    Parameters
    ----------
    registry
        The registry.
    named
        Repositories and tags, not checked yet; no tag stands for all.
    identity
        What identifies the delivery, where something does.
    """
    events: dict[Event, None] = {}
    ignored = malformed = 0
    for repository, tag in named:
        try:
            hint = read_hint(registry, repository, tag)
        except InvalidValueError:
            malformed += 1
            continue
        if hint is None:
            ignored += 1
        else:
            events[Event(hint, None if identity is None else f"{identity} {name_of(hint)}")] = None
    return Reading(events=tuple(events), ignored=ignored, malformed=malformed)
