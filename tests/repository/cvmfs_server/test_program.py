"""Programs are run to their end, whatever they do, and those of an earlier publisher are waited for."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from harness.processes import wait_until
from services.repository.cvmfs_server.ending import end_tree
from services.repository.cvmfs_server.identity import process_identity
from services.repository.cvmfs_server.program import Ended, outlive, run_program


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
    assert 0.2 <= time.monotonic() - started < 60
    assert await process.wait() == -15
    await wait_until(lambda: asyncio.sleep(0, not _group_exists(process.pid)), what="its child is gone")


@pytest.mark.parametrize("waited_for", [True, False])
async def test_what_a_program_starts_in_a_session_of_its_own_is_killed_too(tmp_path: Path, *, waited_for: bool) -> None:
    # As cvmfs_server does by runuser(1), for a repository that root does not own.
    note = tmp_path / "note"
    code = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open({str(note)!r}, "w").write(str(os.getpid()))
time.sleep(1000)
"""
    noted = lambda: asyncio.sleep(0, note.exists() and bool(note.read_text()))  # noqa: E731 - a condition
    if waited_for:
        process, identity = await _start(code)
        await wait_until(noted, what="all have started")
        await outlive(identity, 0)
        await process.wait()
    else:
        assert (await _run(code, timeout=0.1, begun=noted)).status is None
    await _gone(int(note.read_text()))


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


async def test_nobody_is_waited_for_that_is_gone_or_another_one() -> None:
    process, identity = await _start("import time; time.sleep(1000)")
    await outlive(f"{process.pid}/1", 0)
    assert process_identity(process.pid) == identity
    process.kill()
    await process.wait()
    await outlive(identity, 0)


async def _run(
    code: str,
    *,
    timeout: float = 300,  # noqa: ASYNC109 - the time-out that is tested
    begun: Callable[[], Awaitable[bool]] | None = None,
) -> Ended:
    """Run a program; its time begins when it has begun."""

    async def started(identity: str | None) -> None:
        assert identity is not None
        if begun is not None:
            await wait_until(begun, what="the program begins")

    return await run_program([sys.executable, "-c", code], timeout=timeout, patience=1, started=started)


async def test_status_and_output_are_reported() -> None:
    ended = await _run("import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)")
    assert ended == Ended(3, "out\nerr\n")
    assert (await _run("import os; os.kill(os.getpid(), 15)")).status == -15


async def test_only_the_end_of_a_large_output_is_kept() -> None:
    ended = await _run("import os; [os.write(1, bytes(range(256)) * 4096) for _ in range(30)]; print('the end')")
    assert ended.output.endswith("the end\n")
    assert len(ended.output) < 1 << 18


async def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, time; child = os.fork(); print(child or os.getpid(), flush=True)\n"
        f"pathlib.Path({str(tmp_path)!r}, str(child)).touch(); time.sleep(1000)"
    )
    begun = lambda: asyncio.sleep(0, len(os.listdir(tmp_path)) == 2)  # noqa: E731 - a condition
    ended = await _run(code, timeout=0.1, begun=begun)
    assert ended.status is None
    pids = set(map(int, ended.output.split()))
    assert pids
    for pid in pids:
        await _gone(pid)


async def _gone(pid: int) -> None:
    await wait_until(lambda: asyncio.sleep(0, process_identity(pid) is None), what=f"{pid} is gone")


async def test_a_daemon_that_a_program_leaves_is_not_waited_for() -> None:
    started = time.monotonic()
    ended = await _run("import os, time; print('done', flush=True); os.fork() or time.sleep(600)")
    assert ended == Ended(0, "done\n")
    assert time.monotonic() - started < 300


async def test_a_program_can_write_on_when_its_publisher_has_been_killed(tmp_path: Path) -> None:
    # The publisher of this test is a process that runs a program and is killed meanwhile.
    program = (
        "import pathlib, sys, time; here = pathlib.Path(sys.argv[1]); (here / 'begun').touch()\n"
        "while not (here / 'go-on').exists(): time.sleep(0.01)\n"
        "print('still here', flush=True); (here / 'done').touch()"
    )
    publisher = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio, sys\n"
        "from services.repository.cvmfs_server.program import run_program\n"
        "async def forget(_): pass\n"
        "asyncio.run(run_program([sys.executable, '-c', *sys.argv[1:]], timeout=60, patience=1, started=forget))",
        program,
        str(tmp_path),
    )
    await wait_until(lambda: asyncio.sleep(0, (tmp_path / "begun").exists()), what="the program begins")
    publisher.kill()
    await publisher.wait()
    (tmp_path / "go-on").touch()
    await wait_until(lambda: asyncio.sleep(0, (tmp_path / "done").exists()), what="the program ends")


_ASKED = """
import os, pathlib, signal, sys, time
name = {name}
here = pathlib.Path(sys.argv[1])
def end(*_):
    (here / "asked").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, {handler})
(here / f"begun{{name}}").touch()
time.sleep({seconds})
(here / "done").touch()
"""


@pytest.mark.parametrize(
    ("seconds", "patience", "left"), [(1, 300, {"begun", "done"}), (1000, 0.3, {"begun", "asked"})]
)
async def test_a_program_goes_on_for_a_while_when_nobody_waits_for_it_any_more(
    tmp_path: Path, seconds: int, patience: float, left: set[str]
) -> None:
    code = _ASKED.format(handler="end", seconds=seconds, name=repr(""))

    async def forget(_identity: str | None) -> None:
        pass

    running = asyncio.create_task(
        run_program([sys.executable, "-c", code, str(tmp_path)], timeout=300, patience=patience, started=forget)
    )
    await wait_until(lambda: asyncio.sleep(0, (tmp_path / "begun").exists()), what="the program begins")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert set(os.listdir(tmp_path)) == left


async def test_a_program_that_does_not_end_when_it_is_asked_to_is_killed_with_all_that_it_has_started(
    tmp_path: Path,
) -> None:
    code = _ASKED.format(handler="signal.SIG_IGN", seconds=1000, name='"" if os.fork() else os.setsid() or "2"')
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path), start_new_session=True)
    begun = lambda: asyncio.sleep(0, len(os.listdir(tmp_path)) == 2)  # noqa: E731 - a condition
    await wait_until(begun, what="both have begun")
    await end_tree(process.pid, grace=0.3)
    assert await process.wait() == -9


async def test_a_program_that_is_not_there_is_an_error() -> None:
    async def started(_identity: str | None) -> None:
        raise AssertionError("nothing was started")

    with pytest.raises(FileNotFoundError):
        await run_program(["/nowhere/program"], timeout=1, patience=1, started=started)
