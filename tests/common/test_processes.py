import asyncio
from pathlib import Path

from services.common.processes import end_group
from tests.support.processes import ended


async def _start(script: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("sh", "-c", script, start_new_session=True)


async def test_a_program_ends_with_what_it_has_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    process = await _start(f"sleep 1000 & echo $! >{child}.new; mv {child}.new {child}; wait")
    async with asyncio.timeout(300):
        while not child.exists():  # noqa: ASYNC110 - the program makes it
            await asyncio.sleep(0.005)
        await end_group(process)
    assert process.returncode == -9
    await ended(int(child.read_text()))


async def test_one_that_has_ended_is_left_alone() -> None:
    process = await _start("exit 3")
    assert await process.wait() == 3
    await end_group(process)
    assert process.returncode == 3
