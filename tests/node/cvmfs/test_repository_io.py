"""A repository that hangs blocks nobody else, and no end of the process."""

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from services.common.repository_name import RepositoryName
from services.node.cvmfs.repository_io import RepositoryIo, Step
from services.node.errors import RepositoryError
from tests.node.conftest import LOOKUP_TIMEOUT, Core
from tests.support.fuse import served, stop
from tests.support.repositories import Repository


@pytest.mark.usefixtures("mounting")
async def test_a_repository_that_hangs_blocks_only_its_like(
    core: Core, cvmfs_root: Path, tmp_path: Path, other_repository: Repository
) -> None:
    source = Repository(tmp_path / "source")
    hung, good = source.publish("one", {"a": "one"}), other_repository.publish("two", {"b": "two"})
    with served(source.root, cvmfs_root / "test.example.org") as server:
        stop(server.pid)
        start = time.monotonic()
        # More than any pool of threads for all repositories together would have.
        failures = await asyncio.gather(*(core.find(hung) for _ in range(40)), return_exceptions=True)
        assert time.monotonic() - start < 10 * LOOKUP_TIMEOUT
        assert {type(failure) for failure in failures} == {RepositoryError}
        assert {str(failure) for failure in failures} == {
            "repository test.example.org does not answer within 5 s: the CVMFS client hangs"
        }
        assert await core.find(good)
        os.kill(server.pid, signal.SIGCONT)
        assert await core.find(hung)


@pytest.mark.usefixtures("mounting")
async def test_a_process_ends_while_a_look_up_hangs(tmp_path: Path) -> None:
    """A driver that is told to stop does not wait for a client that never answers."""
    (tmp_path / "source").mkdir()
    with served(tmp_path / "source", tmp_path / "hung") as server:
        stop(server.pid)
        program = f"""
import asyncio, pathlib
from services.common.repository_name import RepositoryName
from services.node.cvmfs.host_repositories import HostRepositories
from services.node.cvmfs.repository_io import RepositoryIo
async def look():
    io = RepositoryIo(timeout=0.1)
    try:
        await HostRepositories(root=pathlib.Path({str(tmp_path)!r}), io=io).ensure(RepositoryName("hung"), holder="x")
    except Exception as error:
        print(error)
asyncio.run(look())
"""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), 120)
        assert output == b"repository hung does not answer within 0.1 s: the CVMFS client hangs\n"
        assert process.returncode == 0


async def test_long_work_takes_its_time_as_long_as_it_gets_on() -> None:
    io = RepositoryIo(timeout=2.5)

    def work(step: Step) -> str:
        for _ in range(11):
            step()
            time.sleep(0.25)
        return "done"

    start = time.monotonic()
    assert await io.follow(work, RepositoryName("test.example.org")) == "done"
    assert time.monotonic() - start > 2.5


async def test_long_work_that_hangs_is_given_up_and_goes_no_further() -> None:
    io = RepositoryIo(timeout=0.1)
    hung, ended = threading.Event(), threading.Event()
    steps = []

    def work(step: Step) -> None:
        try:
            for number in range(3):
                step()
                steps.append(number)
                if number == 1:
                    hung.wait()
        finally:
            ended.set()

    with pytest.raises(
        RepositoryError, match=r"test\.example\.org does not answer within 0\.1 s: the CVMFS client hangs"
    ):
        await io.follow(work, RepositoryName("test.example.org"))
    hung.set()
    assert await asyncio.to_thread(ended.wait, 120)
    assert steps == [0, 1]
