"""The publisher's HTTP application."""

from collections.abc import Awaitable, Callable, Iterable

import structlog
from aiohttp import web

from services.common.errors import SuiteError
from services.publisher.handlers.answers import failure
from services.publisher.handlers.refusal import RequestRefusedError
from services.publisher.handlers.token import TokenRefusedError

__all__ = ["create_app"]

_log = structlog.get_logger(__name__)


def create_app(routes: Iterable[web.RouteDef]) -> web.Application:
    """Build the application from its handlers' routes."""
    app = web.Application(middlewares=[_errors])
    app.add_routes(routes)
    return app


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give every error the form of an answer."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        headers = {name: value for name, value in error.headers.items() if name == "Allow"}
        return failure(error.status, f"{request.method} {request.path}: {error.reason}", headers=headers)
    except TokenRefusedError as error:
        return failure(401, str(error), headers={"WWW-Authenticate": "Bearer"})
    except RequestRefusedError as error:
        return failure(error.status, str(error))
    except SuiteError as error:
        _log.error("request failed", path=request.path, reason=str(error))
        return failure(503, str(error))
    except Exception:  # noqa: BLE001 - a defect is answered in the form of any other error
        _log.exception("request failed unexpectedly", path=request.path)
        return failure(500, "the publisher has a defect, which its log describes")
