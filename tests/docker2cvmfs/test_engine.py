"""What `docker load` may do, by a `docker` of the test's own; with a real engine: tests/e2e/test_docker_load.py."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from services.docker2cvmfs.engine import load
from services.docker2cvmfs.errors import EngineError
from tests.support.processes import ended

_HANGS = "sleep 1000 & echo $! >{directory}/child; while echo much; do :; done >&2"
_LEAVES = "cat >{directory}/archive; sleep 1000 & echo $! >{directory}/child"
_FAILS = "cat >/dev/null; echo 'no space left on device' >&2; exit 1"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes `docker` a script."""

    def make(script: str) -> None:
        program = tmp_path / "docker"
        program.write_text(f"#!/bin/sh\n{script.format(directory=tmp_path)}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return make


async def test_a_command_that_hangs_is_ended_with_what_it_has_started(
    docker: Callable[[str], None], tmp_path: Path
) -> None:
    docker(_HANGS)
    async with asyncio.timeout(300):
        with pytest.raises(EngineError, match=r"did not end within 2 s: does the engine answer"):
            await load(b"archive", patience=2)
    await ended(int((tmp_path / "child").read_text()))


async def test_what_a_command_leaves_behind_holds_nobody_up(docker: Callable[[str], None], tmp_path: Path) -> None:
    docker(_LEAVES)
    archive = bytes(range(256)) * 4096
    async with asyncio.timeout(300):
        await load(archive)
    assert (tmp_path / "archive").read_bytes() == archive
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


async def test_a_refusal_is_told(docker: Callable[[str], None]) -> None:
    docker(_FAILS)
    with pytest.raises(EngineError, match=r"docker load failed: no space left on device$"):
        await load(b"archive")
