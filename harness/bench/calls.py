"""Short calls of the plugin protocol, by the socket and as the engine makes them, beside what the socket itself takes.

The other subject is a server of the same library on a socket of its own that does nothing but read requests and answer.
Each row comes twice: as the time that the caller waits, and as processor time of the server, in which the other one's
share is the socket's and the rest the suite's, the kernel's work for it included.
"""

import asyncio
import io
import itertools
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from harness.bench.measure import Row, compare
from harness.processes import Daemon

__all__ = ["calls"]

_FILE: Final = 32 << 20
_FILES: Final = 4
_PIECE: Final = 32 << 10
"""What the engine sends at once."""
_MANY: Final = 100
"""Calls that make one figure of the shortest ones."""


async def calls(directory: Path, runs: int) -> list[Row]:
    """Measure how long Exists, Get and Put, a container's cycle, Diff and ApplyDiff take."""
    directory.mkdir()
    async with AsyncExitStack() as stack:
        plugin = await stack.enter_async_context(_started("services.graphdriver", directory / "plugin"))
        nothing = await stack.enter_async_context(_started("harness.bench.nothing", directory / "nothing"))
        await plugin.call("Init", Home=str(directory / "home"))
        return await _Calls(plugin, nothing, runs).rows()


class _Client:
    """The engine's end of a connection."""

    def __init__(self, session: aiohttp.ClientSession, server: int) -> None:
        self._session = session
        self._server = server

    def cpu(self) -> float:
        """Return the processor time that the server has used, in seconds, but for that of threads that have ended."""
        tasks = Path(f"/proc/{self._server}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    async def call(self, operation: str, **fields: str) -> None:
        """Call an operation, which must succeed, and read its answer."""
        async with self._session.post(f"http://plugin/GraphDriver.{operation}", json=fields) as response:
            await _read(response)

    async def fill(self, layer: str, tar: bytes) -> None:
        """Fill a layer."""
        url = f"http://plugin/GraphDriver.ApplyDiff?id={layer}&parent="
        async with self._session.post(url, data=_pieces(tar)) as response:
            await _read(response)


async def _read(response: aiohttp.ClientResponse) -> None:
    response.raise_for_status()
    async for _ in response.content.iter_any():
        pass


async def _pieces(tar: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(tar), _PIECE):
        yield tar[start : start + _PIECE]


@asynccontextmanager
async def _started(module: str, directory: Path) -> AsyncIterator[_Client]:
    """Start a server, and connect to it."""
    directory.mkdir()
    socket = directory / "plugin.sock"
    env = {"GRAPHDRIVER_SOCKET": str(socket), "GRAPHDRIVER_STATE": str(directory / "state")}
    daemon = Daemon(module, [sys.executable, "-m", module], log=directory / "log", env=env)

    async def listens() -> bool:
        return socket.is_socket()

    try:
        await daemon.start(listens)
        connector = aiohttp.UnixConnector(path=str(socket))
        async with aiohttp.ClientSession(connector=connector, read_bufsize=1 << 20) as session:
            yield _Client(session, daemon.pid)
    finally:
        await daemon.kill()


class _Calls:
    def __init__(self, plugin: _Client, nothing: _Client, runs: int) -> None:
        self._plugin = plugin
        self._nothing = nothing
        self._runs = runs
        self._numbers = itertools.count()

    async def rows(self) -> list[Row]:
        """Make the layers, and measure."""
        large, small = await asyncio.to_thread(_tar, _FILES, _FILE), await asyncio.to_thread(_tar, 1, 3)
        for layer, parent, content in (("base", "", small), ("one", "base", small), ("large", "", large)):
            await self._plugin.call("Create", ID=layer, Parent=parent)
            await self._plugin.fill(layer, content)
        rows = [
            await self._rows("Exists", lambda client: client.call("Exists", ID="base"), times=_MANY),
            await self._rows("Get + Put, empty layer", _get_and_put, times=_MANY),
            await self._rows("container create to remove", self._cycle, times=_MANY // 10),
            await self._rows(
                "Diff of one file", lambda client: client.call("Diff", ID="one", Parent="base"), times=_MANY
            ),
            await self._rows("Diff of 128 MB", lambda client: client.call("Diff", ID="large", Parent="")),
            await self._rows("ApplyDiff of 128 MB", lambda client: self._fill(client, large)),
        ]
        return [row for pair in rows for row in pair]

    async def _rows(self, name: str, work: Callable[[_Client], Awaitable[None]], *, times: int = 1) -> tuple[Row, Row]:
        used: dict[str, list[float]] = {}

        def measured(subject: str, client: _Client) -> Callable[[], Awaitable[float]]:
            used[subject] = []

            async def once() -> float:
                before, started = client.cpu(), time.perf_counter()
                for _ in range(times):
                    await work(client)
                seconds = time.perf_counter() - started
                used[subject].append((client.cpu() - before) / times * 1e6)
                return seconds / times

            return once

        subjects = {"socket alone": self._nothing, "suite": self._plugin}
        work_of = {subject: measured(subject, client) for subject, client in subjects.items()}
        row = await compare(f"plugin, {name}", work_of, runs=self._runs)
        # Without the first one, which warms up.
        samples = {subject: figures[1:] for subject, figures in used.items()}
        return row, Row(name=f"CPU of {name}", unit="µs", samples=samples)

    async def _cycle(self, client: _Client) -> None:
        layer = f"container-{next(self._numbers)}"
        await client.call("CreateReadWrite", ID=layer, Parent="base")
        await client.call("Get", ID=layer)
        await client.call("Put", ID=layer)
        await client.call("Remove", ID=layer)

    async def _fill(self, client: _Client, tar: bytes) -> None:
        # A new one each time: to empty a layer is no part of filling it.
        layer = f"layer-{next(self._numbers)}"
        await client.call("Create", ID=layer, Parent="")
        await client.fill(layer, tar)


async def _diff_one_file(client: _Client) -> None:
    await client.call("Diff", ID="one", Parent="base")


async def _get_and_put(client: _Client) -> None:
    await client.call("Get", ID="base")
    await client.call("Put", ID="base")


def _tar(files: int, size: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(files):
            member = tarfile.TarInfo(f"file-{number}")
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(range(256)) * (size // 256) + bytes(size % 256)))
    return buffer.getvalue()
