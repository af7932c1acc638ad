"""The driver's start inside the managed plugin: what must be set, and what is said about the machine's mounts."""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.processes import wait_until
from services.graphdriver.managed.__main__ import main
from tests.support.engine_client import EngineClient
from tests.support.mounts import mount, unmount_all_below

_REPOSITORY = {"GRAPHDRIVER_REPOSITORIES": "test.example.org"}
_STORE = {
    "LAYER_STORE_ENDPOINT": "http://127.0.0.1:9",
    "LAYER_STORE_ACCESS_KEY": "a",
    "LAYER_STORE_SECRET_KEY": "b",
}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GRAPHDRIVER_", "LAYER_"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environment", "complaints"),
    [
        (_STORE, ["GRAPHDRIVER_REPOSITORIES is not set"]),
        (
            _REPOSITORY | {"LAYER_STORE_BUCKET": "layers"},
            ["LAYER_STORE_ENDPOINT is not set", "LAYER_STORE_SECRET_KEY is not set", "for a node that commits nothing"],
        ),
        (
            {"LAYER_STORE_ACCESS_KEY_FILE": "/nowhere/key", "GRAPHDRIVER_LAYOUT": "deep"},
            ["GRAPHDRIVER_REPOSITORIES is not set", "GRAPHDRIVER_LAYOUT: ", "cannot read /nowhere/key"],
        ),
    ],
)
def test_all_that_is_missing_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    complaints: list[str],
) -> None:
    socket = Path(f"/run/managed-{os.getpid()}/wrong.sock")
    for name, value in {**environment, "GRAPHDRIVER_SOCKET": str(socket)}.items():
        monkeypatch.setenv(name, value)
    assert main() == 2
    # `docker plugin enable` fails if nobody listens, and only then.
    assert not socket.exists()
    said = capsys.readouterr().err
    assert said.startswith("settings (docker plugin set NAME VARIABLE=VALUE): ")
    assert [complaint for complaint in complaints if complaint not in said] == []
    # The engine's log has it as one line.
    assert said.count("\n") == 1


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A /cvmfs that is a directory of a larger file system."""
    (tmp_path / "cvmfs").mkdir()
    return tmp_path / "cvmfs"


@pytest.fixture
def shared(plain: Path) -> Iterator[Path]:
    """A /cvmfs that is a mount of its own."""
    mount("--bind", plain, plain)
    mount("--make-shared", plain)
    yield plain
    unmount_all_below(plain.parent)


def _environment(socket: Path, directory: Path, root: Path) -> dict[str, str]:
    return {
        **os.environ,
        **_REPOSITORY,
        "GRAPHDRIVER_SOCKET": str(socket),
        "GRAPHDRIVER_STATE": str(directory / "state"),
        "GRAPHDRIVER_CVMFS_ROOT": str(root),
        "GRAPHDRIVER_LOG_FORMAT": "json",
    }


_COMMAND = (sys.executable, "-m", "services.graphdriver.managed")


def _run(directory: Path, root: Path) -> tuple[list[str], list[str]]:
    """Start and stop it; return the events on standard output and on standard error."""
    socket = Path(f"/run/managed-{os.getpid()}/cvmfs.sock")
    environment = _environment(socket, directory, root)
    with (
        (directory / "errors").open("w") as errors,
        subprocess.Popen(_COMMAND, stdout=subprocess.PIPE, stderr=errors, env=environment) as process,
    ):
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(2)]
        process.terminate()
        rest = process.stdout.readlines()
    assert process.returncode == 0
    return _events(b"".join(first + rest)), _events((directory / "errors").read_bytes())


def _events(log: bytes) -> list[str]:
    return [json.loads(line)["event"] for line in io.BytesIO(log)]


def test_information_goes_to_standard_output(tmp_path: Path, shared: Path) -> None:
    assert _run(tmp_path, shared) == (["serving", "waiting_for_the_engine", "stopped"], [])


def test_a_directory_that_shows_no_later_mounts_is_warned_of(tmp_path: Path, plain: Path) -> None:
    assert _run(tmp_path, plain)[1] == ["later_mounts_do_not_show"]
    assert f"mount --bind {plain} {plain}" in (tmp_path / "errors").read_text()


_HELD_UP = """
import sys

class HeldUp:
    def find_spec(self, name, path=None, target=None):
        if name == "aiohttp":
            open({gate!r}).read()

sys.meta_path.insert(0, HeldUp())
"""
"""A start of Python after which the server's library is loaded when somebody opens a pipe, and not before."""


async def test_the_engine_finds_it_before_it_is_loaded(tmp_path: Path) -> None:
    """It looks for some ten seconds, and a busy machine takes longer to load a program."""
    socket, gate = Path(f"/run/managed-{os.getpid()}/loading.sock"), tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "sitecustomize.py").write_text(_HELD_UP.format(gate=str(gate)))
    environment = {**_environment(socket, tmp_path, tmp_path), "PYTHONPATH": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(*_COMMAND, stdout=asyncio.subprocess.DEVNULL, env=environment)

    async def listens() -> bool:
        return socket.is_socket()

    try:
        await wait_until(listens, what="the plugin listens")
        async with EngineClient.connected(socket) as client:
            asked = asyncio.create_task(client.call("/Plugin.Activate"))

            async def loads() -> bool:
                try:
                    os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
                except OSError:
                    # Nobody reads yet.
                    return False
                return True

            assert not asked.done()
            await wait_until(loads, what="the plugin begins to load the server's library")
            assert (await asked).document == {"Implements": ["GraphDriver"]}
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
