"""Answers that are a layer's tar, written by the thread that packs it.

The thread sends by itself: pieces that went by way of the event loop would be copied twice there, and have the two
change turns for each. What is small is answered whole, by its length.
"""

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from aiohttp import HttpVersion11, web

from services.common.streams import StreamAbortedError, beside

__all__ = ["BrokenReplyError", "reply_with_tar"]

_TAR: Final = "application/x-tar"
_SMALL: Final = 256 << 10
"""Largest tar, in bytes, that is answered whole."""


class BrokenReplyError(Exception):
    """The tar broke off when its head had been sent, and so has the connection. The cause is what happened.

    Parameters
    ----------
    response
        What had been begun.
    """

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__("the answer broke off")
        self.response = response


async def reply_with_tar(request: web.Request, write: Callable[["TarSink"], None]) -> web.StreamResponse:
    """Answer with a tar: whole, or recognisably not.

    Parameters
    ----------
    request
        What is answered.
    write
        Writes the tar, in a thread of its own.

    Raises
    ------
    Exception
        What `write` raised, where nothing has been sent yet.
    BrokenReplyError
        It failed later, or the other side has gone: without its closing chunk nobody takes the tar for a whole one.
    """
    loop = asyncio.get_running_loop()
    large: asyncio.Future[None] = loop.create_future()
    sink = TarSink(lambda: loop.call_soon_threadsafe(large.set_result, None))
    with contextlib.closing(sink):
        async with beside(lambda: write(sink), abort=sink.abort) as work:
            await asyncio.wait((work, large), return_when=asyncio.FIRST_COMPLETED)
            if not large.done():
                work.result()
                return web.Response(body=sink.held, content_type=_TAR)
            return await _stream(request, sink, work)


async def _stream(request: web.Request, sink: "TarSink", work: asyncio.Future[None]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": _TAR})
    try:
        sink.go_on(await _begin(response, request))
        await asyncio.wait((work,))
        work.result()
        await response.write_eof()
    except BaseException as error:
        if request.transport is not None:
            request.transport.abort()
        if not isinstance(error, Exception):
            raise
        raise BrokenReplyError(response) from error
    return response


@dataclass(frozen=True, slots=True)
class _Wire:
    """The connection, in the thread."""

    socket: socket.socket
    """A descriptor of its own."""
    chunked: bool

    def send(self, data: bytes) -> None:
        """Send a piece, as one chunk where chunks are."""
        self._send((b"%x\r\n" % len(data), data, b"\r\n") if self.chunked else (data,))

    def _send(self, parts: Sequence[bytes]) -> None:
        # It does not block, for the event loop's sake, whose socket it is as well.
        ready = select.poll()
        ready.register(self.socket, select.POLLOUT)
        left = [memoryview(part) for part in parts]
        while left:
            try:
                count = self.socket.sendmsg(left)
            except BlockingIOError:
                ready.poll()
                continue
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if left:
                left[0] = left[0][count:]


async def _begin(response: web.StreamResponse, request: web.Request) -> _Wire:
    """Send the head, all of it, and return the connection for what follows."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the connection has been closed")
    if request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    # Whatever is still to be sent counts as too much, so that it is waited for.
    transport.set_write_buffer_limits(high=0)
    writer = await response.prepare(request)
    if writer is not None:
        await writer.drain()
    transport.set_write_buffer_limits()
    shared: socket.socket = transport.get_extra_info("socket")
    return _Wire(shared.dup(), response.chunked)


class TarSink:
    """Where the thread writes the tar."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell = tell
        """Told when there is more than is held."""
        self._pieces: list[bytes] = []
        self._size = 0
        self._granted: Future[None] = Future()
        self._wire: _Wire | None = None

    @property
    def held(self) -> bytes:
        """The whole tar, where it is small."""
        return b"".join(self._pieces)

    def write(self, data: bytes, /) -> int:
        """Hold data, or send it on; called in the thread.

        Raises
        ------
        StreamAbortedError
            Nobody reads on.
        """
        if self._wire is None:
            self._pieces.append(data)
            self._size += len(data)
            if self._size <= _SMALL:
                return len(data)
            self._tell()
            self._granted.result()
            pieces, self._pieces = self._pieces, []
        else:
            pieces = [data]
        for piece in filter(None, pieces):
            self._send(piece)
        return len(data)

    def _send(self, piece: bytes) -> None:
        if self._wire is None:
            raise StreamAbortedError("nobody reads on")
        try:
            self._wire.send(piece)
        except OSError as error:
            raise StreamAbortedError(f"the other side of the connection has gone: {error}") from error

    def go_on(self, wire: _Wire) -> None:
        """Have the thread send by a connection."""
        self._wire = wire
        self._granted.set_result(None)

    def abort(self) -> None:
        """Make the thread's next write fail, and one that waits for the other side."""
        if not self._granted.done():
            self._granted.set_exception(StreamAbortedError("nobody reads on"))
        elif self._wire is not None:
            with contextlib.suppress(OSError):  # the other side has closed it
                self._wire.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the thread's descriptor; to be called when it has ended."""
        if self._wire is not None:
            self._wire.socket.close()
