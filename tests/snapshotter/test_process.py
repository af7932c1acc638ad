"""The snapshotter as a process: settings, its socket, signals, kills."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import pytest
from grpclib import GRPCError
from grpclib.exceptions import StreamTerminatedError

from harness.handed_over import HandedOver
from harness.processes import Daemon, DaemonError, wait_until
from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import variables
from services.snapshotter.__main__ import main
from services.snapshotter.proto.types_pb2 import Mount
from services.snapshotter.settings import SnapshotterSettings
from tests.support.commands import run_module
from tests.support.containerd import ContainerdClient
from tests.support.core_client import CoreClient
from tests.support.fuse import served, stop
from tests.support.metrics import ask, counted, shown
from tests.support.repositories import Repository, thin_json


class Process:
    """A process that keeps all it has below one directory."""

    def __init__(
        self, directory: Path, settings: Mapping[str, str] | None = None, *, handed_over: HandedOver | None = None
    ) -> None:
        self.handed_over = handed_over
        # Paths of sockets are short, hence not below the directory of a test.
        self.socket = Path(f"/run/test-{zlib.crc32(os.fsencode(directory)):08x}/snapshotter.sock")
        environment = {
            "SNAPSHOTTER_SOCKET": str(self.socket),
            "SNAPSHOTTER_STATE": str(directory / "state"),
            "SNAPSHOTTER_CVMFS_ROOT": str(directory / "cvmfs"),
            "SNAPSHOTTER_REPOSITORIES": "test.example.org",
            "SNAPSHOTTER_PUBLISH_WAIT": "30",
            **(settings or {}),
        }
        module = "services.snapshotter"
        self.daemon = Daemon(
            "snapshotter",
            handed_over.command(module) if handed_over else [sys.executable, "-m", module],
            log=directory / "snapshotter.log",
            env=environment,
            descriptors=[handed_over.descriptor] if handed_over else [],
        )

    async def is_greeting(self) -> bool:
        assert self.handed_over is not None
        return await self.handed_over.is_served()

    async def start(self) -> None:
        async def answers() -> bool:
            try:
                async with ContainerdClient.connected(self.socket) as client:
                    await client.list()
            except (OSError, StreamTerminatedError):
                return False
            return True

        await self.daemon.start(answers, timeout=120)


@pytest.fixture
async def process(
    tmp_path: Path,
    cvmfs_root: Path,  # noqa: ARG001 - is made
) -> AsyncIterator[Process]:
    process = Process(tmp_path)
    await process.start()
    yield process
    await process.daemon.kill()


async def test_its_socket_is_roots(process: Process) -> None:
    assert stat.S_IMODE(process.socket.stat().st_mode) == 0o600
    assert await process.daemon.stop() == 0
    assert not process.socket.exists()


async def test_it_is_watched_by_a_socket_of_its_own(tmp_path: Path, cvmfs_root: Path) -> None:
    repository = Repository(cvmfs_root)
    place = Process(tmp_path).socket.with_name("metrics.sock")
    process = Process(tmp_path, {"SNAPSHOTTER_METRICS": str(place), "SNAPSHOTTER_PUBLISH_WAIT": "0"})
    await process.start()
    async with ContainerdClient.connected(process.socket) as client:
        await client.layer("thin", "", {"thin.json": thin_json(repository.url("missing"))})
        for _ in range(2):
            with pytest.raises(GRPCError, match="1 of 1 layers did not show"):
                await client.prepare("moby/1/container", "thin")
        with pytest.raises(GRPCError):
            await client.stat("moby/1/container")
        with pytest.raises(GRPCError):
            await client.apply(Mount())
        values = await shown(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    operations = counted(values, "thin_node_operations_total")
    assert {key: operations[key] for key in operations if "List" not in key} == {
        '{method="Prepare",outcome="ok"}': 1,
        '{method="Commit",outcome="ok"}': 1,
        '{method="Prepare",outcome="failed"}': 2,
        '{method="Stat",outcome="refused"}': 1,
        '{method="Apply",outcome="declined"}': 1,
    }
    assert counted(values, "thin_node_publication_waits_total") == {
        '{outcome="failed",repository="test.example.org"}': 2
    }
    document = await ask(place, "/healthz")
    assert document["status"] == "alive"
    assert "test.example.org" in document["repositories"]
    assert await process.daemon.stop() == 0
    assert not place.exists()


async def test_what_it_has_answered_it_knows_after_a_kill(process: Process) -> None:
    async with ContainerdClient.connected(process.socket) as client:
        await client.layer("base", "", {"file": "x"})
        mount = await client.prepare("moby/1/container", "base")
    await process.daemon.kill()
    await process.start()
    async with ContainerdClient.connected(process.socket) as client:
        assert await client.mounts("moby/1/container") == mount


async def test_a_call_that_lasts_is_given_up(process: Process, cvmfs_root: Path) -> None:
    repository = Repository(cvmfs_root)
    async with ContainerdClient.connected(process.socket) as client:
        await client.layer("thin", "", {"thin.json": thin_json(repository.url("missing"))})
        waiting = asyncio.create_task(client.prepare("moby/1/container", "thin"))
        await client.list()
        async with asyncio.timeout(300):
            assert await process.daemon.stop() == 0
        with pytest.raises((GRPCError, StreamTerminatedError, OSError)):
            await waiting


@pytest.fixture
async def handed_over(
    tmp_path: Path,
    cvmfs_root: Path,  # noqa: ARG001 - is made
) -> AsyncIterator[Process]:
    """A process whose socket outlives it; it has not been started."""
    with contextlib.closing(HandedOver(Process(tmp_path).socket)) as listener:
        listener.listen()
        process = Process(tmp_path, handed_over=listener)
        yield process
        await process.daemon.kill()
        assert process.socket.exists()


async def test_no_call_is_lost_by_restarts(handed_over: Process) -> None:
    """Those that are on their way when it ends are made by the next process, and those that come before it as well."""
    made = 0

    async def work(number: int) -> None:
        nonlocal made
        async with CoreClient.connected(handed_over.socket) as client:
            while len(ends) < 2:
                await client.prepare(f"moby/{number}/{made}")
                made += 1

    ends: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        # The first ones come before it is there.
        for number in range(3):
            tasks.create_task(work(number))
        while len(ends) < 2:
            before = made
            await handed_over.start()

            async def is_used(before: int = before) -> bool:
                return made > before + 10

            await wait_until(is_used, what="calls are made")
            ends.append(await handed_over.daemon.stop())
        await handed_over.start()
    assert ends == [0, 0]
    async with ContainerdClient.connected(handed_over.socket) as client:
        assert len(await client.list()) == made


async def test_a_call_that_has_begun_ends_while_others_wait_for_the_next_process(
    handed_over: Process, cvmfs_root: Path
) -> None:
    repository = Repository(cvmfs_root)
    await handed_over.start()
    async with ContainerdClient.connected(handed_over.socket) as client:
        await client.layer("thin", "", {"thin.json": thin_json(repository.url("late"))})
    async with CoreClient.connected(handed_over.socket) as client:
        begun = asyncio.create_task(client.prepare("moby/1/container", "thin"))
        # What comes later is answered later, unless it waits.
        assert await client.list() == ["thin"]
        stopping = asyncio.create_task(handed_over.daemon.stop())
        await client.leaves()
        other = asyncio.create_task(client.prepare("moby/2/other"))
        repository.publish("late", {"file": "x"})
        assert (await begun).type == "overlay"
        assert await stopping == 0
        assert not other.done()
        await handed_over.start()
        assert (await other).type == "bind"
        assert len(await client.list()) == 3


async def test_a_process_that_is_stopped_as_it_starts_loses_nothing(handed_over: Process) -> None:
    async with CoreClient.connected(handed_over.socket) as client:
        asked = asyncio.create_task(client.prepare("moby/1/container"))
        # All that it can do by now is to greet.
        await handed_over.daemon.start(handed_over.is_greeting, timeout=120)
        assert await handed_over.daemon.stop() == 0
        await handed_over.start()
        assert (await asked).type == "bind"


async def test_whoever_comes_is_greeted_before_the_state_is_open(handed_over: Process, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "state/snapshots.sqlite", isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        starting = asyncio.create_task(handed_over.start())
        async with CoreClient.connected(handed_over.socket) as client:
            await client.ready()
            asked = asyncio.create_task(client.list())
            assert not starting.done()
            held.execute("ROLLBACK")
            assert await asked == []
        await starting


async def test_a_repository_that_hangs_holds_up_nobody(tmp_path: Path, cvmfs_root: Path) -> None:
    good, hung = Repository(cvmfs_root), cvmfs_root / "hung.example.org"
    process = Process(tmp_path, {"SNAPSHOTTER_REPOSITORIES": f"{good.name},{hung.name}"})
    await process.start()
    source = Repository(tmp_path / "source", hung.name)
    url = source.publish("layer", {"file": "x"})
    with served(source.root, hung) as server:
        async with (
            CoreClient.connected(process.socket) as waiting,
            ContainerdClient.connected(process.socket) as client,
        ):
            await client.layer("hung", "", {"thin.json": thin_json(url)})
            await client.layer("good", "", {"thin.json": thin_json(good.publish("layer", {"file": "y"}))})
            await client.prepare("moby/1/runs", "hung")
            stop(server.pid)
            calls = [asyncio.create_task(waiting.prepare(f"moby/{number}/waits", "hung")) for number in range(30)]
            # Whatever needs nothing of it is served, also what stands on it.
            assert (await client.prepare("moby/1/good", "good")).type == "overlay"
            await client.layer("other", "", {"file": "z"})
            await client.remove("moby/1/good")
            await client.usage("hung")
            await client.commit("moby/1/committed", "moby/1/runs")
            await client.remove("moby/1/committed")
            await client.cleanup()
            assert sorted(info.name for info in await client.list()) == ["good", "hung", "other"]
            # All of them have begun.
            await waiting.list()
            assert not any(call.done() for call in calls)
            assert await process.daemon.stop() == 0
            await asyncio.wait(calls)
            assert all(isinstance(call.exception(), grpc.aio.AioRpcError) for call in calls)


def test_little_is_loaded_before_anybody_is_greeted() -> None:
    program = "import sys, services.snapshotter.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "services.snapshotter.rpc.greeting" in loaded
    assert {"asyncio", "grpclib", "pydantic", "structlog"}.isdisjoint(loaded)


async def test_one_process_for_one_state(process: Process, tmp_path: Path) -> None:
    for settings, reason in (
        ({"SNAPSHOTTER_STATE": str(tmp_path / "other")}, f"another process listens on {process.socket}"),
        ({"SNAPSHOTTER_SOCKET": f"{process.socket}2"}, f"another process uses {tmp_path}/state"),
    ):
        ended = await run_module("services.snapshotter", env=process.daemon.env | settings)
        assert ended.status == 1
        assert reason in ended.errors


async def test_a_state_that_cannot_be_used(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "snapshots.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(DaemonError, match=r"status 1\n(?s:.*)snapshots\.sqlite cannot be used: file is not a database"):
        await Process(tmp_path).start()


async def test_help_names_every_setting() -> None:
    shown = await run_module("services.snapshotter", "--help")
    assert shown.status == 0
    for group in (SnapshotterSettings, ObjectStoreSettings, ArchiveLimits):
        for variable in variables(group):
            assert variable.name in shown.out.decode()


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (["serve"], {}, "unknown arguments serve"),
        (["config", "--containerd", "1.6"], {}, "unknown arguments config --containerd 1.6"),
        ([], {"SNAPSHOTTER_STATE": "relative"}, "SNAPSHOTTER_STATE: "),
        ([], {"SNAPSHOTTER_METRICS": "0.0.0.0:9478"}, "SNAPSHOTTER_METRICS: "),
        ([], {"SNAPSHOTTER_REPOSITORY": "x"}, "SNAPSHOTTER_REPOSITORY is not a setting"),
    ],
)
def test_what_cannot_be_meant(
    arguments: list[str],
    environment: dict[str, str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["snapshotter", *arguments])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main() == 2
    assert text in capsys.readouterr().err
