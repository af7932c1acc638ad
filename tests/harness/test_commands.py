"""Commands that do not end, or leave something behind, hold nobody up."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.commands import CommandError, run
from tests.support.processes import ended, runs


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Path]:
    """Where a command writes the number of what it leaves behind, which is ended with the test."""
    file = tmp_path / "child"
    yield file
    if file.exists():
        os.kill(int(file.read_text()), signal.SIGKILL)


async def test_what_a_command_says_and_gets(tmp_path: Path) -> None:
    completed = await run("sh", "-c", "cat; echo complaint >&2", input=b"from memory\n")
    assert (completed.text, completed.complaint) == ("from memory", "complaint")
    (tmp_path / "source").write_text("from a file")
    await run("cat", input=tmp_path / "source", output=tmp_path / "sink")
    assert (tmp_path / "sink").read_text() == "from a file"


async def test_a_failure_tells_what_was_said() -> None:
    with pytest.raises(CommandError, match=r"(?s)exit status 3\nsaid$") as failure:
        await run("sh", "-c", "echo said; exit 3")
    assert failure.value.completed.returncode == 3
    assert (await run("sh", "-c", "exit 3", accept=(3,))).returncode == 3


async def test_a_command_that_writes_without_end_is_ended() -> None:
    async with asyncio.timeout(300):
        with pytest.raises(CommandError, match=r"(?s)not done within 2 s\n.*much\nmuch"):
            await run("sh", "-c", "while echo much; do :; done", timeout=2)


async def test_a_command_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    """A child that holds the output must neither hold up whoever waits nor go on."""
    async with asyncio.timeout(300):
        with pytest.raises(CommandError, match=r"not done within 3 s"):
            await run("sh", "-c", f"sleep 1000 & echo $! >{tmp_path}/child; wait", timeout=3)
    await ended(int((tmp_path / "child").read_text()))


async def test_a_command_that_is_given_up_is_ended(tmp_path: Path) -> None:
    task = asyncio.create_task(run("sh", "-c", f"echo $$ >{tmp_path}/own; exec sleep 1000", input=bytes(1 << 20)))
    async with asyncio.timeout(300):
        while not (tmp_path / "own").exists() or not (tmp_path / "own").read_text():  # noqa: ASYNC110 - the command writes it
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not runs(int((tmp_path / "own").read_text()))


async def test_what_a_command_leaves_behind_holds_nobody_up(child: Path) -> None:
    async with asyncio.timeout(300):
        completed = await run("sh", "-c", f"sleep 1000 & echo $! >{child}; echo done")
    assert completed.text == "done"
