"""Connections that a test's proxy takes, each served by a task of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

__all__ = ["Connections"]

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[object, object, None]]


class Connections:
    """The connections.

    Parameters
    ----------
    serve
        Serves one, and ends it, also where it is cancelled.
    """

    def __init__(self, serve: _Serve) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def taken(self, *, port: int = 0) -> AsyncIterator[int]:
        """Take connections on the loopback interface until the end of the context; give the port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await self.abort()
            await server.wait_closed()

    async def abort(self) -> None:
        """End those that are there."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
