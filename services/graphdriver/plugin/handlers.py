"""The endpoints of the protocol: HTTP only, what is done is the driver's affair.

Success is 200 with one JSON value, failure a status other than 200 with `{"Err": text}`; the engine shows the text to
its user. Diff answers a raw tar: it fails before the first byte, or breaks the connection, so that the engine never
takes a cut tar for a whole one.
"""

import contextlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from services.common.archive.pack import pack
from services.common.descriptor import DESCRIPTOR_NAME, ThinDescriptor
from services.common.errors import InvalidValueError, SuiteError
from services.common.streams import StreamAbortedError
from services.graphdriver.errors import BrokenRequestError, NotInitialisedError
from services.graphdriver.plugin.messages import CreateRequest, GetRequest, InitRequest, LayerRequest, PairRequest
from services.graphdriver.plugin.session import Session
from services.graphdriver.plugin.tar_reply import BrokenReplyError, TarSink, reply_with_tar
from services.node.changes import Change
from services.node.diffs import TreeDiff
from services.node.errors import InterruptedWorkError, UnknownLayerError, UnsupportedError
from services.node.layers import LayerId, LayerKind
from services.node.metrics import NodeMetrics, Outcome

__all__ = ["SESSION", "build_app"]

SESSION: Final = web.AppKey("session", Session)
"""The session that the handlers serve."""

_METRICS: Final = web.AppKey("metrics", NodeMetrics)

_BODY_LIMIT: Final = 1 << 20
"""Largest JSON body, in bytes."""
_DONE: Final = 200
_FAULT: Final = 500
"""Statuses: all as it should be; the fault is the plugin's or the node's."""
_UNKNOWN: Final = "unknown"
"""Name of all operations that the protocol does not have."""
_PIECE: Final = 64 << 10
"""Bytes of a long answer that are sent together."""

_log = structlog.get_logger(__name__)

_Message = TypeVar("_Message", bound=BaseModel)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(session: Session, metrics: NodeMetrics) -> web.Application:
    """Build the application that serves the protocol.

    Parameters
    ----------
    session
        Has the driver.
    metrics
        Counts what it is asked for.
    """
    app = web.Application(client_max_size=_BODY_LIMIT, middlewares=[_counted])
    app[SESSION] = session
    app[_METRICS] = metrics
    app.router.add_post("/Plugin.Activate", _activate)
    for name, handler in {
        "Init": _init,
        "Capabilities": _capabilities,
        "Create": _create,
        "CreateReadWrite": _create_read_write,
        "Remove": _remove,
        "Get": _get,
        "Put": _put,
        "Exists": _exists,
        "Status": _status,
        "GetMetadata": _metadata,
        "Cleanup": _cleanup,
        "Diff": _diff,
        "Changes": _changes,
        "ApplyDiff": _apply_diff,
        "DiffSize": _diff_size,
    }.items():
        app.router.add_post(f"/GraphDriver.{name}", handler)
    return app


@web.middleware
async def _counted(request: web.Request, handler: _Handler) -> web.StreamResponse:
    route = request.match_info.route.resource
    method = _UNKNOWN if route is None else route.canonical.rpartition(".")[2]
    with request.app[_METRICS].operations.one(method) as course:
        try:
            response = await _answered(request, handler)
        except BrokenReplyError as error:
            if isinstance(error.__cause__, ConnectionError | StreamAbortedError):
                course.outcome = Outcome.CANCELLED
                _log.warning("diff_not_wanted", reason=str(error.__cause__))
            else:
                course.outcome = Outcome.FAILED
                _log.exception("diff_broken_off")
            return error.response
        if response.status == _FAULT:
            course.outcome = Outcome.FAILED
        elif response.status != _DONE:
            course.outcome = Outcome.REFUSED
        return response


async def _answered(request: web.Request, handler: _Handler) -> web.StreamResponse:
    # Not taken back: a request is served in a task, and so a context, of its own.
    structlog.contextvars.bind_contextvars(operation=request.path.rpartition("/")[2])
    try:
        return await handler(request)
    except BrokenReplyError:
        raise
    except web.HTTPException as error:
        return _failure(error.status, str(error))
    except web.RequestPayloadError as error:
        # Not of the encoding that its own headers name; aiohttp's text has several lines.
        reason = " ".join(str(error).split())
        return _failure(400, f"{request.path}: the body of the request cannot be read: {reason}")
    except SuiteError as error:
        status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), _FAULT)
        if status == _FAULT:
            _log.error("operation_failed", error=str(error))
        return _failure(status, str(error))
    except OSError as error:
        _log.exception("operation_failed")
        return _failure(_FAULT, str(error))
    except Exception as error:  # noqa: BLE001 - the engine shows its user what it is told, and nothing else
        _log.exception("operation_failed")
        return _failure(_FAULT, f"a fault of the graphdriver, see its log: {error!r}")


_STATUSES: Final[Mapping[type[SuiteError], int]] = {
    BrokenRequestError: 400,
    InvalidValueError: 400,
    UnsupportedError: 400,
    UnknownLayerError: 404,
    InterruptedWorkError: 409,
    NotInitialisedError: 503,
}
"""Statuses of errors that are not the plugin's own."""


def _failure(status: int, text: str) -> web.Response:
    return _answer({"Err": text}, status=status)


def _answer(document: Mapping[str, object], *, status: int = 200) -> web.Response:
    # As bytes: a text has aiohttp find out its encoding, which takes longer than many an operation.
    return web.Response(body=json.dumps(document).encode(), status=status, content_type="application/json")


async def _read(request: web.Request, message: type[_Message]) -> _Message:
    body = await request.read()
    if not body:
        raise InvalidValueError(f"{request.path} came without a body, as when the engine repeats a request: try again")
    try:
        return message.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise InvalidValueError(f"{request.path}: {place}: {first['msg']}") from None


def _parent(message: PairRequest) -> LayerId | None:
    return LayerId(message.parent) if message.parent else None


async def _activate(_request: web.Request) -> web.Response:
    return _answer({"Implements": ["GraphDriver"]})


async def _init(request: web.Request) -> web.Response:
    message = await _read(request, InitRequest)
    if message.uid_maps or message.gid_maps:
        raise UnsupportedError(
            "user namespaces (userns-remap) are not supported: files in CVMFS cannot change their owners"
        )
    await request.app[SESSION].initialise(Path(message.home), message.options or [])
    return _answer({"Err": ""})


async def _capabilities(_request: web.Request) -> web.Response:
    # With false, push and save read the files that the engine has recorded, thin.json among them, through Get.
    return _answer({"Capabilities": {"ReproducesExactDiffs": False}})


async def _create(request: web.Request) -> web.Response:
    return await _create_layer(request, LayerKind.IMAGE)


async def _create_read_write(request: web.Request) -> web.Response:
    return await _create_layer(request, LayerKind.CONTAINER)


async def _create_layer(request: web.Request, kind: LayerKind) -> web.Response:
    message = await _read(request, CreateRequest)
    if message.storage_opt:
        raise UnsupportedError(f"--storage-opt {next(iter(message.storage_opt))} is not supported by this driver")
    await request.app[SESSION].driver.create(LayerId(message.id), _parent(message), kind)
    return _answer({"Err": ""})


async def _remove(request: web.Request) -> web.Response:
    message = await _read(request, LayerRequest)
    await request.app[SESSION].driver.remove(LayerId(message.id))
    return _answer({"Err": ""})


async def _get(request: web.Request) -> web.Response:
    message = await _read(request, GetRequest)
    directory = await request.app[SESSION].driver.get(LayerId(message.id), label=message.mount_label)
    return _answer({"Dir": str(directory), "Err": ""})


async def _put(request: web.Request) -> web.Response:
    message = await _read(request, LayerRequest)
    await request.app[SESSION].driver.put(LayerId(message.id))
    return _answer({"Err": ""})


async def _exists(request: web.Request) -> web.Response:
    message = await _read(request, LayerRequest)
    return _answer({"Exists": await request.app[SESSION].driver.exists(LayerId(message.id))})


async def _status(request: web.Request) -> web.Response:
    return _answer({"Status": await request.app[SESSION].driver.reports.status()})


async def _metadata(request: web.Request) -> web.Response:
    message = await _read(request, LayerRequest)
    return _answer({"Metadata": await request.app[SESSION].driver.reports.metadata(LayerId(message.id)), "Err": ""})


async def _cleanup(request: web.Request) -> web.Response:
    await request.app[SESSION].driver.shut_down()
    return _answer({"Err": ""})


async def _diff(request: web.Request) -> web.StreamResponse:
    message = await _read(request, PairRequest)
    diff = await request.app[SESSION].driver.diffs.diff(LayerId(message.id), _parent(message))
    if isinstance(diff, ThinDescriptor):
        return web.Response(body=_descriptor_tar(diff), content_type="application/x-tar")
    return await _stream_tree(request, diff)


def _descriptor_tar(descriptor: ThinDescriptor) -> bytes:
    content = descriptor.encode()
    member = tarfile.TarInfo(DESCRIPTOR_NAME)
    member.size = len(content)
    member.mode = 0o644
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


async def _stream_tree(request: web.Request, diff: TreeDiff) -> web.StreamResponse:
    def write(sink: TarSink) -> None:
        with diff.opened() as tree:
            pack(tree, sink)

    structlog.contextvars.bind_contextvars(tree=os.fspath(diff.trees[-1]))
    return await reply_with_tar(request, write)


async def _changes(request: web.Request) -> web.Response:
    message = await _read(request, PairRequest)
    found = await request.app[SESSION].driver.diffs.changes(LayerId(message.id), _parent(message))
    return web.Response(body=_changes_document(found), content_type="application/json", charset="utf-8")


async def _changes_document(found: Iterable[Change]) -> AsyncIterator[bytes]:
    """Write the answer in pieces: the paths in a deep tree are long, and all of them at once more than need be held."""
    document = bytearray(b'{"Changes": [')
    separator = b""
    for change in found:
        # JSON is text; a byte that is no UTF-8 shows as the engine's own encoder shows it, as U+FFFD.
        entry = {"Path": change.path.decode(errors="replace"), "Kind": int(change.kind)}
        document += separator + json.dumps(entry).encode()
        separator = b", "
        if len(document) >= _PIECE:
            yield bytes(document)
            document.clear()
    yield bytes(document) + b'], "Err": ""}'


async def _apply_diff(request: web.Request) -> web.Response:
    # The engine does not escape the query; the ids of layers need no escaping.
    layer_id = LayerId(request.query.get("id", ""))
    try:
        content = await request.app[SESSION].driver.apply(layer_id, _body(request, layer_id))
    except InterruptedWorkError:
        # The engine has given the layer up itself, and its content may never come to an end.
        raise
    except Exception:
        await _read_to_the_end(request)
        raise
    for note in content.notes:
        _log.warning("layer_not_kept_whole", layer=layer_id, note=note)
    return _answer({"Size": content.tree_size, "Err": ""})


async def _read_to_the_end(request: web.Request) -> None:
    """Take the rest of a layer that is refused.

    Whoever answers earlier makes the engine close the layer and lend its buffer to the next one while a goroutine
    still reads into it (moby's layer_store.go, applyTar): now and then the whole engine then ends by a panic.
    """
    with contextlib.suppress(ConnectionError, web.RequestPayloadError):  # why it is refused is the better answer
        async for _ in request.content.iter_any():
            pass


async def _body(request: web.Request, layer_id: LayerId) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except ConnectionError as error:
        # As after Ctrl-C at `docker load`: no fault of this program, hence no traceback.
        _log.warning("body_broken_off", layer=layer_id, reason=repr(error))
        raise BrokenRequestError(f"layer {layer_id} was not filled: the request broke off: {error!r}") from error


async def _diff_size(request: web.Request) -> web.Response:
    message = await _read(request, PairRequest)
    return _answer({"Size": await request.app[SESSION].driver.diffs.size(LayerId(message.id)), "Err": ""})
