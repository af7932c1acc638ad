"""The stand-in for `cvmfs_server` loses, refuses and keeps what the real one does."""

import asyncio
import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cvmfs_server.standin import StandIn
from tests.support.mounts import unmount_all_below


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    server = StandIn(tmp_path / "stratum0", "test.cern.ch")
    server.create()
    yield server
    unmount_all_below(tmp_path)


def _publish(server: StandIn) -> subprocess.CompletedProcess[str]:
    return server.run("publish", "-f", server.name)


def test_nothing_is_writable_outside_a_transaction(server: StandIn) -> None:
    with pytest.raises(OSError, match="Read-only") as caught:
        (server.area / "file").touch()
    assert caught.value.errno == errno.EROFS


def test_a_publish_shows_everything_at_once_as_a_new_revision(server: StandIn) -> None:
    server.run("transaction", server.name)
    (server.area / "file").write_text("content")
    assert not (server.published / "file").exists()
    assert server.in_transaction
    _publish(server)
    assert (server.published / "file").read_text() == "content"
    assert (server.area / "file").read_text() == "content"
    assert server.revision == 2
    assert os.getxattr(server.spool / server.name / "rdonly", "user.revision") == b"2"
    assert not server.in_transaction


def test_a_second_transaction_is_refused(server: StandIn) -> None:
    server.run("transaction", server.name)
    second = server.run("transaction", server.name, check=False)
    assert second.returncode == errno.EEXIST
    assert second.stderr == "CernVM-FS transaction error: another transaction is already open\n"


def test_an_abort_drops_the_changes(server: StandIn) -> None:
    server.run("transaction", server.name)
    (server.area / "file").touch()
    assert server.run("abort", server.name, check=False).returncode == errno.EINTR
    assert server.in_transaction
    server.run("abort", "-f", server.name)
    assert not server.in_transaction
    assert not (server.area / "file").exists()
    assert server.run("abort", "-f", server.name, check=False).returncode == errno.EINVAL


def test_a_deletion_device_is_refused(server: StandIn) -> None:
    server.run("transaction", server.name)
    with pytest.raises(PermissionError):
        os.mknod(server.area / "deleted", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(server.area / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    _publish(server)
    assert (server.published / "null").stat().st_rdev == os.makedev(1, 3)


def test_whiteout_names_are_deletions_and_never_stored(server: StandIn) -> None:
    server.run("transaction", server.name)
    (server.area / "kept").touch()
    (server.area / "gone").touch()
    _publish(server)
    server.run("transaction", server.name)
    (server.area / ".wh.gone").touch()
    (server.area / ".wh.never").touch()
    (server.area / ".wh..wh..opq").touch()
    assert "opaque" in _publish(server).stderr
    assert os.listdir(server.published) == ["kept"]


def test_deletions_and_changed_attributes_are_published(server: StandIn) -> None:
    server.run("transaction", server.name)
    (server.area / "directory" / "inner").mkdir(parents=True)
    (server.area / "file").touch()
    _publish(server)
    server.run("transaction", server.name)
    (server.area / "file").unlink()
    (server.area / "directory" / "inner").rmdir()
    (server.area / "directory").chmod(0o1770)
    os.chown(server.area / "directory", 12, 34)
    _publish(server)
    assert os.listdir(server.published) == ["directory"]
    status = (server.published / "directory").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1770, 12, 34)
    assert os.listdir(server.published / "directory") == []


def test_hard_links_become_files_of_their_own_with_a_warning(server: StandIn) -> None:
    server.run("transaction", server.name)
    (server.area / "one").write_text("content")
    (server.area / "two").hardlink_to(server.area / "one")
    assert _publish(server).stderr.count("hardlink") == 2
    assert (server.published / "two").read_text() == "content"
    assert (server.published / "two").stat().st_nlink == 1


@pytest.mark.parametrize(("included", "size", "kept"), [(False, 5, False), (True, 5, True), (True, 257, False)])
def test_xattrs_are_kept_if_they_are_included_and_short(server: StandIn, included: bool, size: int, kept: bool) -> None:  # noqa: FBT001
    if included:
        server.want("include-xattrs")
    server.run("transaction", server.name)
    (server.area / "file").touch()
    os.setxattr(server.area / "file", "user.name", b"x" * size)
    _publish(server)
    assert os.listxattr(server.published / "file") == (["user.name"] if kept else [])


def test_an_open_writer_makes_a_publish_fail(server: StandIn) -> None:
    server.run("transaction", server.name)
    with (server.area / "file").open("w"):
        refused = server.run("publish", "-f", server.name, check=False)
    assert (refused.returncode, refused.stdout) == (1, "Open writable file descriptors on test.cern.ch\n")
    assert server.in_transaction


def test_a_graft_marker_makes_a_publish_fail(server: StandIn) -> None:
    server.run("transaction", server.name)
    (server.area / ".cvmfsgraft-file").touch()
    assert server.run("publish", "-f", server.name, check=False).returncode == 1
    assert server.revision == 1


def test_a_message_that_a_shell_would_take_apart_fails(server: StandIn) -> None:
    server.run("transaction", server.name)
    assert server.run("publish", "-f", "-m", "two words", server.name, check=False).returncode == 1


async def test_an_abort_is_refused_while_a_publish_is_under_way(server: StandIn) -> None:
    server.run("transaction", server.name)
    (server.area / "file").touch()
    server.want("hang.publish.sync")
    environment = {**os.environ, **server.environment}
    publish = await asyncio.create_subprocess_exec("cvmfs_server", "publish", "-f", server.name, env=environment)
    await server.reached("publish.sync")
    refused = server.run("abort", "-f", server.name, check=False)
    assert (refused.returncode, refused.stdout) == (
        1,
        "Repository test.cern.ch is currently published (aborting abort)\n",
    )
    publish.kill()
    await publish.wait()
    server.run("abort", "-f", server.name)
    assert (server.revision, server.in_transaction) == (1, False)


def test_list_shows_an_open_transaction(server: StandIn) -> None:
    assert server.run("list").stdout == "test.cern.ch (stratum0 / local) \n"
    server.run("transaction", server.name)
    assert server.run("list").stdout == "test.cern.ch (stratum0 / local - in transaction) \n"


def test_failures_and_garbage_come_on_demand(server: StandIn) -> None:
    server.want("fail.transaction.begin", "no space left")
    server.want("garbage.transaction", "100000")
    failed = subprocess.run(
        ["cvmfs_server", "transaction", server.name],
        check=False,
        capture_output=True,
        env={**os.environ, **server.environment},
        cwd="/",
    )
    assert (failed.returncode, failed.stderr, len(failed.stdout)) == (1, b"no space left\n", 100000)
    assert not server.in_transaction
