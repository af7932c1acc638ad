"""The stand-in for `cvmfs_server` loses, refuses and keeps what the real one does."""

import asyncio
import errno
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from harness.processes import wait_until
from tests.support.cvmfs_server.held import second_mount
from tests.support.cvmfs_server.standin import StandIn


def _publish(standin: StandIn) -> subprocess.CompletedProcess[str]:
    return standin.run("publish", "-f", standin.name)


def test_nothing_is_writable_outside_a_transaction(standin: StandIn) -> None:
    with pytest.raises(OSError, match="Read-only") as caught:
        (standin.area / "file").touch()
    assert caught.value.errno == errno.EROFS


def test_a_publish_shows_everything_at_once_as_a_new_revision(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    (standin.area / "file").write_text("content")
    assert not (standin.published / "file").exists()
    assert standin.in_transaction
    _publish(standin)
    assert (standin.published / "file").read_text() == "content"
    assert (standin.area / "file").read_text() == "content"
    assert standin.revision == 2
    assert os.getxattr(standin.spool / standin.name / "rdonly", "user.revision") == b"2"
    assert not standin.in_transaction


def test_a_second_transaction_is_refused(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    second = standin.run("transaction", standin.name, check=False)
    assert second.returncode == errno.EEXIST
    assert second.stderr == "CernVM-FS transaction error: another transaction is already open\n"


def test_an_abort_drops_the_changes(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    (standin.area / "file").touch()
    assert standin.run("abort", standin.name, check=False).returncode == errno.EINTR
    assert standin.in_transaction
    standin.run("abort", "-f", standin.name)
    assert not standin.in_transaction
    assert not (standin.area / "file").exists()
    assert standin.run("abort", "-f", standin.name, check=False).returncode == errno.EINVAL


def test_a_deletion_device_is_refused(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    with pytest.raises(PermissionError):
        os.mknod(standin.area / "deleted", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(standin.area / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    _publish(standin)
    assert (standin.published / "null").stat().st_rdev == os.makedev(1, 3)


def test_whiteout_names_are_deletions_and_never_stored(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    (standin.area / "kept").touch()
    (standin.area / "gone").touch()
    (standin.area / "lost").touch()
    _publish(standin)
    standin.run("transaction", standin.name)
    (standin.area / ".wh.gone").touch()
    (standin.area / ".wh.never").touch()
    (standin.area / ".WH.lost").touch()  # whatever the case
    (standin.area / ".wh..wh..opq").touch()
    assert "opaque" in _publish(standin).stderr
    assert os.listdir(standin.published) == ["kept"]


def test_deletions_and_changed_attributes_are_published(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    (standin.area / "directory" / "inner").mkdir(parents=True)
    (standin.area / "file").touch()
    _publish(standin)
    standin.run("transaction", standin.name)
    (standin.area / "file").unlink()
    (standin.area / "directory" / "inner").rmdir()
    (standin.area / "directory").chmod(0o1770)
    os.chown(standin.area / "directory", 12, 34)
    _publish(standin)
    assert os.listdir(standin.published) == ["directory"]
    status = (standin.published / "directory").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1770, 12, 34)
    assert os.listdir(standin.published / "directory") == []


def test_hard_links_become_files_of_their_own_with_a_warning(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    (standin.area / "one").write_text("content")
    (standin.area / "two").hardlink_to(standin.area / "one")
    assert _publish(standin).stderr.count("hardlink") == 2
    assert (standin.published / "two").read_text() == "content"
    assert (standin.published / "two").stat().st_nlink == 1


def test_xattrs_of_up_to_255_bytes_are_kept_if_they_are_included(standin: StandIn) -> None:
    standin.configure("CVMFS_INCLUDE_XATTRS", "true")
    assert _published_xattrs(standin) == {"user.5": 5, "user.255": 255, "user.256": 0}


def test_xattrs_that_are_not_included_are_dropped(standin: StandIn) -> None:
    assert _published_xattrs(standin) == {}


def _published_xattrs(standin: StandIn) -> dict[str, int]:
    standin.run("transaction", standin.name)
    (standin.area / "file").touch()
    for size in (5, 255, 256, 257):
        os.setxattr(standin.area / "file", f"user.{size}", b"x" * size)
    _publish(standin)
    published = standin.published / "file"
    return {name: len(os.getxattr(published, name)) for name in os.listxattr(published)}


def test_an_open_writer_makes_a_publish_fail(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    with (standin.area / "file").open("w"):
        refused = standin.run("publish", "-f", standin.name, check=False)
    assert (refused.returncode, refused.stdout) == (1, "Open writable file descriptors on test.cern.ch\n")
    assert standin.in_transaction


@pytest.mark.parametrize("name", [".cvmfsgraft-file", ".cvmfsbundles"])
def test_a_name_of_cvmfs_s_own_makes_a_publish_fail(standin: StandIn, name: str) -> None:
    standin.run("transaction", standin.name)
    (standin.area / name).touch()
    assert standin.run("publish", "-f", standin.name, check=False).returncode == 1
    assert standin.revision == 1


def test_a_message_that_a_shell_would_take_apart_fails(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    assert standin.run("publish", "-f", "-m", "two words", standin.name, check=False).returncode == 1


async def test_an_abort_is_refused_while_a_publish_is_under_way(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    (standin.area / "file").touch()
    standin.want("hang.publish.sync")
    environment = {**os.environ, **standin.environment}
    publish = await asyncio.create_subprocess_exec("cvmfs_server", "publish", "-f", standin.name, env=environment)
    await standin.reached("publish.sync")
    refused = standin.run("abort", "-f", standin.name, check=False)
    assert (refused.returncode, refused.stderr) == (
        errno.EINVAL,
        f"Could not acquire lock {standin.publishing_lock}\n",
    )
    publish.kill()
    await publish.wait()
    standin.run("abort", "-f", standin.name)
    assert (standin.revision, standin.in_transaction) == (1, False)


def test_list_shows_an_open_transaction(standin: StandIn) -> None:
    assert standin.run("list").stdout == "test.cern.ch (stratum0 / local) \n"
    standin.run("transaction", standin.name)
    assert standin.run("list").stdout == "test.cern.ch (stratum0 / local - in transaction) \n"


def test_list_calls_a_repository_unhealthy_whose_mounts_are_not_as_they_should_be(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    standin.lose_mounts()
    assert standin.run("list").stdout == "test.cern.ch (stratum0 / local - in transaction - unhealthy) \n"
    standin.run("mount", standin.name)
    (standin.area / "file").touch()
    standin.run("abort", "-f", standin.name)
    assert standin.run("list").stdout == "test.cern.ch (stratum0 / local) \n"


async def test_a_publish_that_is_killed_leaves_the_area_read_only(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    standin.want("hang.publish.sync")
    environment = {**os.environ, **standin.environment}
    publish = await asyncio.create_subprocess_exec("cvmfs_server", "publish", "-f", standin.name, env=environment)
    await standin.reached("publish.sync")
    publish.kill()
    await publish.wait()
    with pytest.raises(OSError, match="Read-only"):
        (standin.area / "file").touch()
    assert "unhealthy" in standin.run("list").stdout


def test_a_publish_that_fails_leaves_the_area_writable(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    standin.want("fail.publish.sync", "no space left")
    assert standin.run("publish", "-f", standin.name, check=False).returncode == 1
    (standin.area / "file").touch()


def test_an_abort_that_cannot_unmount_ends_well(standin: StandIn) -> None:
    standin.run("transaction", standin.name)
    standin.want("fail.abort.unmount", "busy")
    assert standin.run("abort", "-f", standin.name).stderr == "busy\n"
    assert standin.in_transaction


def test_failures_and_garbage_come_on_demand(standin: StandIn) -> None:
    standin.want("fail.transaction.begin", "no space left")
    standin.want("garbage.transaction", "100000")
    failed = subprocess.run(
        ["cvmfs_server", "transaction", standin.name],
        check=False,
        capture_output=True,
        env={**os.environ, **standin.environment},
        cwd="/",
    )
    assert (failed.returncode, failed.stderr, len(failed.stdout)) == (1, b"no space left\n", 100000)
    assert not standin.in_transaction


async def _killed(standin: StandIn, point: str, number: signal.Signals) -> None:
    """Send a signal to a publish that has reached a point."""
    standin.run("transaction", standin.name)
    standin.want(f"hang.{point}")
    environment = {**os.environ, **standin.environment}
    publish = await asyncio.create_subprocess_exec("cvmfs_server", "publish", "-f", standin.name, env=environment)
    await standin.reached(point)
    publish.send_signal(number)
    await publish.wait()
    standin.no_longer(f"hang.{point}")


@pytest.mark.parametrize("point", ["publish.mounted", "publish.hook"])
async def test_a_publish_that_is_killed_after_the_remount_leaves_the_lock_to_the_client(
    standin: StandIn, point: str
) -> None:
    await _killed(standin, point, signal.SIGKILL)
    if point == "publish.hook":
        standin.run("transaction", standin.name)
    refused = standin.run("abort", "-f", standin.name, check=False)
    assert (refused.returncode, refused.stderr) == (errno.EINVAL, f"Could not acquire lock {standin.publishing_lock}\n")
    standin.publishing_lock.unlink()
    standin.run("abort", "-f", standin.name)
    assert standin.healthy


@pytest.mark.parametrize("point", ["publish.mounted", "publish.hook"])
async def test_a_publish_that_is_asked_to_end_gives_the_lock_back(standin: StandIn, point: str) -> None:
    await _killed(standin, point, signal.SIGTERM)
    if point == "publish.mounted":
        standin.run("abort", "-f", standin.name)
    standin.run("mount", standin.name)
    standin.run("transaction", standin.name)
    _publish(standin)
    assert standin.revision == 3


def test_a_client_that_has_died_is_seen_and_repaired(standin: StandIn) -> None:
    standin.lose_client()
    with pytest.raises(OSError, match="not connected") as caught:
        os.stat(standin.spool / standin.name / "rdonly" / "file")
    assert caught.value.errno == errno.ENOTCONN
    assert not standin.healthy
    standin.run("mount", standin.name)
    assert standin.healthy


def test_list_asks_for_all_repositories_and_info_for_one(standin: StandIn) -> None:
    standin.run("mkfs", "other.cern.ch")
    standin.want("unanswering", "0.5", repository="other.cern.ch")
    started = time.monotonic()
    standin.run("list")
    assert time.monotonic() - started >= 0.5
    # Longer than any test may take.
    standin.want("unanswering", "3600", repository="other.cern.ch")
    standin.run("info", standin.name)


def test_a_storage_that_does_not_answer_makes_info_fail(standin: StandIn) -> None:
    standin.want("unreachable", "connection refused")
    assert standin.run("info", standin.name, check=False).returncode == 1


@pytest.mark.parametrize("private", [True, False])
async def test_a_second_mount_keeps_a_publish_from_ending(standin: StandIn, tmp_path: Path, *, private: bool) -> None:
    standin.run("transaction", standin.name)
    (standin.area / "lower").mkdir()
    async with second_mount(standin, tmp_path, private=private):
        environment = {**os.environ, **standin.environment}
        publish = await asyncio.create_subprocess_exec("cvmfs_server", "publish", "-f", standin.name, env=environment)
        await wait_until(lambda: asyncio.sleep(0, standin.revision == 2), what="it has published")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await publish.wait()
    assert await publish.wait() == 0
    assert standin.healthy
