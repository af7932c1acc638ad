"""Repositories that the driver mounts itself: once, counted, mounted again when their client died, let go when idle.

The client is a stand-in, tests/support/cvmfs2.py, which mounts by FUSE for real.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from harness.processes import wait_until
from services.common.repository_name import RepositoryName
from services.node.cvmfs.client_repositories import ClientRepositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.errors import RepositoryError
from tests.support import cvmfs2
from tests.support.fuse import stop
from tests.support.mounts import mounts_below, unmount_all_below
from tests.support.processes import command_lines, runs

TEST = RepositoryName("test.example.org")
OTHER = RepositoryName("other.example.org")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Directory of what the stand-in serves."""
    source = tmp_path / "source"
    for name in (TEST, OTHER):
        (source / name).mkdir(parents=True)
        (source / name / "content").write_text(name)
    return source


@pytest.fixture
def directory(home: Path) -> Path:
    """Directory of the mount points."""
    return home / "repositories"


New = Callable[..., ClientRepositories]


@pytest.fixture
async def new(
    source: Path,
    directory: Path,
    tmp_path: Path,
    io: RepositoryIo,
    mounting: None,  # noqa: ARG001 - ends after this
) -> AsyncIterator[New]:
    """Make a process's worth of repositories."""
    command = str(cvmfs2.install(tmp_path, source))
    made = []

    def make(*, linger: float = 60, command: str = command, mount_timeout: float = 60) -> ClientRepositories:
        repositories = ClientRepositories(
            directory=directory,
            command=command,
            io=io,
            mount_timeout=mount_timeout,
            linger=linger,
            alternative="SETTING_OF_MOUNTS=host",
        )
        made.append(repositories)
        return repositories

    yield make
    for repositories in made:
        await repositories.shut_down()
    unmount_all_below(directory)


def _behave(source: Path, name: str, behaviour: str) -> None:
    (source / f"{name}.behaviour").write_text(behaviour)


async def _gone(point: Path) -> None:
    async def gone() -> bool:
        return str(point) not in mounts_below(point.parent)

    await wait_until(gone, what=f"{point} is unmounted")


async def test_a_repository_is_mounted_as_the_clients_own_helper_mounts_it(
    new: New, source: Path, directory: Path
) -> None:
    point = await new().ensure(TEST, holder="a")
    assert point == directory / TEST
    assert (point / "content").read_text() == TEST
    options = "fsname=cvmfs2,allow_other,grab_mountpoint,cvmfs_suid"
    assert cvmfs2.calls(source) == [["-o", options, TEST, str(point)]]


async def test_what_the_clients_own_helper_makes_is_made(new: New) -> None:
    with contextlib.suppress(FileNotFoundError):
        cvmfs2.SOCKETS.rmdir()
    await new().ensure(TEST, holder="a")
    assert cvmfs2.SOCKETS.is_dir()


async def test_a_client_ends_with_its_mount_wherever_that_has_leaked_to(
    new: New, source: Path, directory: Path
) -> None:
    repositories = new(linger=0.1)
    await repositories.ensure(TEST, holder="a")
    # Somebody's mount namespace, which is told of nothing that is unmounted elsewhere.
    copies = "echo && exec sleep 60"
    other = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", copies), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        await other.stdout.readline()
        repositories.release(holder="a")
        await _gone(directory / TEST)
        server = cvmfs2.serving_process(source, TEST)
        # Until then a client that is started anew would wait for it.
        await wait_until(lambda: asyncio.sleep(0, not runs(server)), what="the client ends")
        assert (await repositories.ensure(TEST, holder="b") / "content").read_text() == TEST
    finally:
        other.kill()
        await other.wait()


async def test_it_is_mounted_once_for_all_its_users(new: New, source: Path, directory: Path) -> None:
    repositories = new()
    points = await asyncio.gather(*(repositories.ensure(TEST, holder=f"h{number}") for number in range(10)))
    assert set(points) == {directory / TEST}
    assert len(cvmfs2.calls(source)) == 1
    assert repositories.in_use() == {TEST: 10}
    assert mounts_below(directory) == [str(directory / TEST)]


async def test_it_is_unmounted_a_while_after_its_last_user_went(new: New, directory: Path) -> None:
    repositories = new(linger=0.3)
    point = await repositories.ensure(TEST, holder="a")
    await repositories.ensure(TEST, holder="b")
    await repositories.ensure(OTHER, holder="b")
    repositories.release(holder="a")
    await asyncio.sleep(0.4)
    assert len(mounts_below(directory)) == 2
    start = time.monotonic()
    repositories.release(holder="b")
    assert repositories.in_use() == {}
    await _gone(point)
    assert time.monotonic() - start >= 0.3
    await _gone(directory / OTHER)


async def test_a_new_user_within_the_while_needs_no_new_mount(new: New, source: Path, directory: Path) -> None:
    repositories = new(linger=2)
    for _ in range(3):
        await repositories.ensure(TEST, holder="a")
        repositories.release(holder="a")
        await asyncio.sleep(0)
    await repositories.ensure(TEST, holder="b")
    await asyncio.sleep(2.1)
    assert mounts_below(directory) == [str(directory / TEST)]
    assert len(cvmfs2.calls(source)) == 1


async def test_a_repository_that_dropped_to_no_users_is_mounted_again(new: New, source: Path) -> None:
    repositories = new(linger=0)
    for number in (1, 2, 3):
        point = await repositories.ensure(TEST, holder="a")
        assert (point / "content").read_text() == TEST
        repositories.release(holder="a")
        await _gone(point)
        assert len(cvmfs2.calls(source)) == number


async def test_a_user_who_came_before_the_unmount_keeps_the_mount(new: New, source: Path, directory: Path) -> None:
    """The last user goes while another waits for the mount that is being made."""
    repositories = new(linger=0)
    first = asyncio.create_task(repositories.ensure(TEST, holder="a"))

    async def called() -> bool:
        return bool(cvmfs2.calls(source))

    await wait_until(called, what="the client is called")
    second = asyncio.create_task(repositories.ensure(TEST, holder="b"))
    await asyncio.sleep(0)
    repositories.release(holder="a")
    await asyncio.gather(first, second)
    await asyncio.sleep(0.2)
    assert mounts_below(directory) == [str(directory / TEST)]
    repositories.release(holder="b")
    await _gone(directory / TEST)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_mount_whose_client_ended_is_replaced(
    new: New, source: Path, directory: Path, number: signal.Signals
) -> None:
    repositories = new()
    point = await repositories.ensure(TEST, holder="a")
    # What was looked at a moment ago is in the kernel's cache, and no sign of life.
    os.stat(point / "content")
    os.kill(cvmfs2.serving_process(source, TEST), number)

    async def dead() -> bool:
        try:
            os.statvfs(point)
        except OSError:
            return True
        return not os.path.ismount(point)

    await wait_until(dead, what="the mount is dead")
    assert await repositories.ensure(TEST, holder="b") == point
    assert (point / "content").read_text() == TEST
    assert mounts_below(directory) == [str(point)]
    assert len(cvmfs2.calls(source)) == 2


async def test_a_client_that_hangs_is_an_error_in_time_and_blocks_no_other(new: New, source: Path) -> None:
    repositories = new()
    await repositories.ensure(TEST, holder="a")
    process = cvmfs2.serving_process(source, TEST)
    stop(process)
    hung = asyncio.create_task(repositories.ensure(TEST, holder="b"))
    await repositories.ensure(OTHER, holder="c")
    assert not hung.done()
    with pytest.raises(RepositoryError, match=f"repository {TEST} does not answer within 5 s: the CVMFS client hangs"):
        await hung
    os.kill(process, signal.SIGCONT)
    await repositories.ensure(TEST, holder="b")
    assert len(cvmfs2.calls(source)) == 2  # it had not died, so it was not mounted anew


async def test_a_mount_that_fails_says_what_the_client_said_and_can_be_tried_again(
    new: New, source: Path, directory: Path
) -> None:
    repositories = new()
    _behave(source, TEST, "fail")
    with pytest.raises(
        RepositoryError,
        match=rf"mount of {TEST}: .*/cvmfs2 ended with status 9: (?s:.*)Failed to initialize root file catalog",
    ):
        await repositories.ensure(TEST, holder="a")
    assert mounts_below(directory) == []
    _behave(source, TEST, "")
    await repositories.ensure(TEST, holder="a")
    assert repositories.in_use() == {TEST: 1}


async def test_a_mount_that_hangs_is_ended(new: New, source: Path, directory: Path) -> None:
    repositories = new(mount_timeout=0.5)
    _behave(source, TEST, "hang")
    with pytest.raises(RepositoryError, match=rf"mount of {TEST}: .*/cvmfs2 did not end within 0\.5 s"):
        await repositories.ensure(TEST, holder="a")
    assert not _running(str(source))
    assert mounts_below(directory) == []


async def test_a_cancelled_mount_leaves_no_process(new: New, source: Path) -> None:
    _behave(source, TEST, "hang")
    mounting = asyncio.create_task(new().ensure(TEST, holder="a"))

    async def called() -> bool:
        return bool(cvmfs2.calls(source))

    await wait_until(called, what="the client is called")
    mounting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mounting
    assert not _running(str(source))


def _running(word: str) -> list[bytes]:
    """Return the command lines of the stand-in's processes."""
    return [line for line in command_lines().values() if word.encode() in line]


async def test_a_client_that_only_says_it_has_mounted_is_not_believed(new: New, source: Path) -> None:
    _behave(source, TEST, "elsewhere")
    with pytest.raises(
        RepositoryError,
        match=f"(?s)ended well, but repository {TEST} is not mounted at.*already mounted on.*SETTING_OF_MOUNTS=host",
    ):
        await new().ensure(TEST, holder="a")


async def test_a_client_that_is_not_installed_is_named(new: New) -> None:
    with pytest.raises(RepositoryError, match=f"mount of {TEST}: cannot run /usr/bin/no-cvmfs2: No such file"):
        await new(command="/usr/bin/no-cvmfs2").ensure(TEST, holder="a")


async def test_an_unknown_repository_is_the_clients_own_complaint(new: New) -> None:
    name = RepositoryName("nowhere.example.org")
    with pytest.raises(RepositoryError, match=r"failed to load configuration of nowhere\.example\.org"):
        await new().ensure(name, holder="a")


async def test_shutting_down_unmounts_everything(new: New, directory: Path) -> None:
    repositories = new()
    for name in (TEST, OTHER):
        await repositories.ensure(name, holder="a")
    repositories.release(holder="a")
    await repositories.shut_down()
    assert mounts_below(directory) == []
    # As after a restart of the engine.
    await repositories.ensure(TEST, holder="a")


async def test_what_an_earlier_process_left_is_kept_where_it_is_used_and_let_go_where_not(
    new: New, source: Path, directory: Path
) -> None:
    before = new()
    for name in (TEST, OTHER):
        await before.ensure(name, holder="a")
    (directory / "lost+found").mkdir()
    after = new(linger=0.1)
    after.claim(TEST, holder="a")
    after.adopt()
    await _gone(directory / OTHER)
    await asyncio.sleep(0.2)
    assert mounts_below(directory) == [str(directory / TEST)]
    await after.ensure(TEST, holder="b")
    assert len(cvmfs2.calls(source)) == 2
    for holder in ("a", "b"):
        after.release(holder=holder)
    await _gone(directory / TEST)


async def test_nothing_was_left_where_nothing_was_ever_mounted(new: New) -> None:
    repositories = new()
    repositories.adopt()
    await repositories.shut_down()
    assert repositories.in_use() == {}
