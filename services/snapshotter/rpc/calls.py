"""Calls as containerd makes them: counted, and their errors in its codes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import structlog
from grpclib import GRPCError, Status
from grpclib.server import Stream

from services.common.errors import SuiteError
from services.node.errors import NodeError
from services.node.metrics import Course, NodeMetrics, Outcome
from services.snapshotter.errors import (
    BadRequestError,
    DeclinedError,
    ExistsError,
    NotFoundError,
    PreconditionError,
)

__all__ = ["Calls", "namespace_of", "received"]

_log = structlog.get_logger(__name__)

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_CODES: Final[Mapping[type[SuiteError], Status]] = {
    NotFoundError: Status.NOT_FOUND,
    ExistsError: Status.ALREADY_EXISTS,
    BadRequestError: Status.INVALID_ARGUMENT,
    PreconditionError: Status.FAILED_PRECONDITION,
    DeclinedError: Status.UNIMPLEMENTED,
    # To containerd it has no other meaning than its text.
    NodeError: Status.FAILED_PRECONDITION,
}


class Calls:
    """Serves calls one by one.

    Parameters
    ----------
    metrics
        Counts them.
    """

    def __init__(self, metrics: NodeMetrics) -> None:
        self._metrics = metrics

    @asynccontextmanager
    async def one(self, name: str) -> AsyncIterator[None]:
        """Serve one call; what it raises is sent with its text, which people get to see.

        Parameters
        ----------
        name
            Of the method, for the log.
        """
        with self._metrics.operations.one(name) as course:
            async with _told(name, course):
                yield


@asynccontextmanager
async def _told(name: str, course: Course) -> AsyncIterator[None]:
    """Make of what a call raises what containerd understands."""
    try:
        yield
    except SuiteError as error:
        status = next((code for kind, code in _CODES.items() if isinstance(error, kind)), Status.UNKNOWN)
        if status is Status.UNKNOWN or isinstance(error, NodeError):
            _log.warning("call_failed", method=name, reason=str(error))
        else:
            course.outcome = Outcome.DECLINED if status is Status.UNIMPLEMENTED else Outcome.REFUSED
        raise GRPCError(status, str(error)) from error
    except GRPCError:
        raise
    except Exception as error:
        _log.exception("call_failed", method=name)
        raise GRPCError(Status.INTERNAL, f"{name}: {error}") from error


async def received(stream: Stream[_Request, _Response]) -> _Request:
    """Return the request of a call.

    Raises
    ------
    BadRequestError
        The client sent none.
    """
    request = await stream.recv_message()
    if request is None:
        raise BadRequestError("the call has no request")
    return request


def namespace_of(stream: Stream[_Request, _Response]) -> str:
    """Return containerd's namespace of a call; empty where it is not known: Debian's containerd loses it on the way."""
    metadata: Mapping[str, str | bytes] = stream.metadata or {}
    return str(metadata.get("containerd-namespace", ""))
