"""The snapshotter on its socket, and a client that speaks as containerd does."""

import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.serial import SerialThread
from services.common.unix_socket import listen
from services.node.store import NodeStore
from services.snapshotter.factory import FrontEnd, build
from services.snapshotter.rpc.calls import Calls
from services.snapshotter.rpc.diff import DiffHandlers
from services.snapshotter.rpc.greeting import Greeter
from services.snapshotter.rpc.server import serve
from services.snapshotter.rpc.snapshots import SnapshotsHandlers
from services.snapshotter.settings import SnapshotterSettings
from tests.support.containerd import ContainerdClient
from tests.support.repositories import Repository


class Snapshotters:
    """Starts snapshotters, each of which goes on where the one before it stopped."""

    def __init__(self, settings: SnapshotterSettings, store: NodeStore | None = None) -> None:
        self.settings = settings
        self._store = store
        self.front_end: FrontEnd
        """The one that was started last."""

    @asynccontextmanager
    async def running(self, greeter: Greeter | None = None) -> AsyncIterator[ContainerdClient]:
        """Run one, and connect to it; for those who have come already, if there are some."""
        async with AsyncExitStack() as stack:
            greeter = greeter or Greeter(listen(self.settings.socket, setting="SNAPSHOTTER_SOCKET"))
            stack.callback(greeter.close)
            thread = SerialThread("snapshots")
            stack.callback(thread.close)
            self.front_end = await thread.run(
                lambda: build(settings=self.settings, limits=ArchiveLimits(), store=self._store, thread=thread)
            )
            stack.push_async_callback(thread.run, self.front_end.store.close)
            await self.front_end.snapshotter.resume()
            calls = Calls(self.front_end.metrics)
            handlers = (
                SnapshotsHandlers(snapshotter=self.front_end.snapshotter, calls=calls),
                DiffHandlers(differ=self.front_end.differ, calls=calls),
            )
            await stack.enter_async_context(serve(handlers, greeter))
            yield await stack.enter_async_context(ContainerdClient.connected(self.settings.socket))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "snapshotter"


@pytest.fixture
def snapshotters(tmp_path: Path, state: Path, cvmfs_root: Path) -> Snapshotters:
    # Paths of sockets are short, hence not below the directory of a test.
    runtime = Path(f"/run/test-{zlib.crc32(bytes(tmp_path)):08x}")
    settings = SnapshotterSettings(
        socket=runtime / "snapshotter.sock",
        state=state,
        containerd=runtime / "containerd.sock",
        repositories=("test.example.org",),
        cvmfs_root=cvmfs_root,
        publish_wait=0.2,
        lookup_timeout=4,
    )
    return Snapshotters(settings)


@pytest.fixture
async def client(snapshotters: Snapshotters) -> AsyncIterator[ContainerdClient]:
    """A client of a running snapshotter."""
    async with snapshotters.running() as client:
        yield client


@pytest.fixture
def repository(cvmfs_root: Path) -> Repository:
    return Repository(cvmfs_root)
