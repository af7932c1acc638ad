"""The snapshotter as a process: settings, its socket, signals, kills."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from grpclib import GRPCError
from grpclib.exceptions import StreamTerminatedError

from harness.processes import Daemon, DaemonError
from services.common.archive.limits import ArchiveLimits
from services.common.object_store import ObjectStoreSettings
from services.common.settings import variables
from services.snapshotter.__main__ import main
from services.snapshotter.proto.types_pb2 import Mount
from services.snapshotter.settings import SnapshotterSettings
from tests.support.commands import run_module
from tests.support.containerd import ContainerdClient
from tests.support.metrics import ask, counted, shown
from tests.support.repositories import Repository, thin_json

_HANDED_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", "services.snapshotter"])
"""
"""What a service manager does with a socket that it listens on."""


class Process:
    """A process that keeps all it has below one directory."""

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
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
        command = [sys.executable, "-m", "services.snapshotter"]
        self.daemon = Daemon("snapshotter", command, log=directory / "snapshotter.log", env=environment)

    async def start(self) -> None:
        async def answers() -> bool:
            try:
                async with ContainerdClient.connected(self.socket) as client:
                    await client.list()
            except (OSError, StreamTerminatedError):
                return False
            return True

        await self.daemon.start(answers)


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
    assert (document["status"], list(document["repositories"])) == ("alive", ["test.example.org"])
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


async def test_a_call_ends_before_the_process_does(process: Process, cvmfs_root: Path) -> None:
    repository = Repository(cvmfs_root)
    async with ContainerdClient.connected(process.socket) as client:
        await client.layer("thin", "", {"thin.json": thin_json(repository.url("late"))})
        waiting = asyncio.create_task(client.prepare("moby/1/container", "thin"))
        # What comes later is answered later, unless it waits.
        await client.list()
        stopping = asyncio.create_task(process.daemon.stop())
        repository.publish("late", {"file": "x"})
        assert (await waiting).type == "overlay"
        assert await stopping == 0


async def test_a_call_that_lasts_is_given_up(process: Process, cvmfs_root: Path) -> None:
    repository = Repository(cvmfs_root)
    async with ContainerdClient.connected(process.socket) as client:
        await client.layer("thin", "", {"thin.json": thin_json(repository.url("missing"))})
        waiting = asyncio.create_task(client.prepare("moby/1/container", "thin"))
        await client.list()
        async with asyncio.timeout(15):
            assert await process.daemon.stop() == 0
        with pytest.raises((GRPCError, StreamTerminatedError, OSError)):
            await waiting


async def test_a_socket_that_is_handed_over(tmp_path: Path, cvmfs_root: Path) -> None:
    assert cvmfs_root.exists()
    process = Process(tmp_path)
    process.socket.parent.mkdir(exist_ok=True)
    process.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(process.socket))
        listener.listen()
        for number in range(2):
            # Whoever comes before it waits for it.
            async with ContainerdClient.connected(process.socket) as client:
                asked = asyncio.create_task(client.prepare(f"moby/{number}/container"))
                await asyncio.sleep(0)
                started = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", _HANDED_OVER, str(listener.fileno())),
                    env={**os.environ, **process.daemon.env},
                    pass_fds=[listener.fileno()],
                    stderr=subprocess.DEVNULL,
                )
                assert (await asked).type == "bind"
                assert len(await client.list()) == number + 1
                started.kill()
                await started.wait()
    process.socket.unlink()


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
