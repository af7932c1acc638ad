"""Running the client's programs."""

import asyncio

import pytest

from services.node.cvmfs.program import run
from services.node.errors import RepositoryError


async def test_what_it_says_comes_back() -> None:
    assert await run("echo", "remounted", timeout=10, what="a test") == "remounted"


async def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(RepositoryError, match="a test: sh ended with status 3: no such repository"):
        await run("sh", "-c", "echo no such repository; exit 3", timeout=10, what="a test")


async def test_a_program_that_hangs_is_killed() -> None:
    with pytest.raises(RepositoryError, match=r"sleep did not end within 0\.1 s"):
        await run("sleep", "60", timeout=0.1, what="a test")


async def test_a_cancellation_is_never_lost() -> None:
    """Else a task that asks clients again and again would outlive whoever waits for its end."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await run("true", timeout=10, what="a test")
    usual = loop.time() - begun
    for number in range(100):
        task = asyncio.create_task(run("true", timeout=10, what="a test"))
        await asyncio.wait((task,), timeout=usual * (0.6 + number / 125))
        if task.cancel():
            await asyncio.wait((task,))
            assert task.cancelled()
