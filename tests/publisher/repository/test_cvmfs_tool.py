"""Programs that an earlier publisher has started are waited for, and only those."""

import asyncio
import os
import sys
import time

import pytest

from services.publisher.repository.cvmfs_tool import outlive, process_identity


async def _start(code: str) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, start_new_session=True)
    identity = process_identity(process.pid)
    assert identity is not None
    return process, identity


async def test_a_program_that_ends_is_waited_for() -> None:
    process, identity = await _start("import time; time.sleep(0.3)")
    await outlive(identity, 30)
    assert process_identity(process.pid) is None
    assert await process.wait() == 0


async def test_a_program_that_hangs_is_killed_with_what_it_has_started() -> None:
    process, identity = await _start("import os, time; os.fork(); time.sleep(1000)")
    started = time.monotonic()
    await outlive(identity, 0.2)
    assert 0.2 <= time.monotonic() - started < 10
    assert await process.wait() == -9
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


async def test_nobody_is_waited_for_that_is_gone_or_another_one() -> None:
    process, identity = await _start("import time; time.sleep(1000)")
    await outlive(f"{process.pid}/1", 0)
    assert process_identity(process.pid) == identity
    process.kill()
    await process.wait()
    await outlive(identity, 0)
