"""The snapshotter's pods have the capabilities that it needs: with these everything works, without one of them not."""

import os
import stat
import struct
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpclib import GRPCError
from grpclib.exceptions import StreamTerminatedError
from grpclib.server import Server

from harness.processes import Daemon, DaemonError
from harness.s3 import S3Access
from services.common.unix_socket import listen
from tests.support.containerd import ContainerdClient, lowers, mounted, option
from tests.support.content_store import Content, Leases
from tests.support.kubernetes import overlay, render
from tests.support.repositories import Repository, thin_json

_NET_BIND = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""A file capability (struct vfs_cap_data, revision 2, effective): CAP_NET_BIND_SERVICE."""
_USER = 1000


@dataclass(frozen=True, kw_only=True)
class Node:
    """A running snapshotter, and what containerd does with it."""

    client: ContainerdClient
    repository: Repository
    content: Content
    state: Path


async def _has_the_roots_attributes(node: Node) -> None:
    """A container's root has owner and mode of the image's, the set-group-id bit included."""
    url = node.repository.publish("users", {"file": "x"})
    tree = node.repository.tree("users")
    os.chown(tree, _USER, _USER)
    tree.chmod(0o2775)
    await node.client.layer("users", "", {"thin.json": thin_json(url)})
    upper = Path(option(await node.client.prepare("k8s.io/1/users", "users"), "upperdir"))
    status = upper.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (_USER, _USER, 0o2775)


async def _has_deletions(node: Node) -> None:
    """What layers delete is not there."""
    base = node.repository.publish("base", {"gone": "1", "opaque/old": "1"})
    top = node.repository.publish("top", {"opaque/new": "2"}, whiteouts=[b"gone"], opaque=[b"opaque"])
    await node.client.layer("deletions", "", {"thin.json": thin_json(base, top)})
    with mounted(await node.client.prepare("k8s.io/1/deletions", "deletions")) as root:
        assert not (root / "gone").exists()
        assert [path.name for path in (root / "opaque").iterdir()] == ["new"]


async def _deletes_what_users_leave(node: Node) -> None:
    """What containers of other users leave is deleted, however they protect it."""
    upper = Path((await node.client.prepare("k8s.io/1/left")).source)
    private, sticky = upper / "private", upper / "sticky"
    for directory, mode in ((private, 0o700), (sticky, 0o1777)):
        directory.mkdir()
        (directory / "file").touch()
        os.chown(directory / "file", _USER + 1, _USER + 1)
        os.chown(directory, _USER, _USER)
        directory.chmod(mode)
    await node.client.remove("k8s.io/1/left")
    await node.client.cleanup()
    assert list((node.state / "trash").iterdir()) == []


async def _commits(node: Node) -> None:
    """A commit holds what containers of all users leave."""
    url = node.repository.publish("committed-on", {"base": "1"})
    await node.client.layer("thin", "", {"thin.json": thin_json(url)})
    container = await node.client.prepare("k8s.io/1/committed", "thin")
    _fill(Path(option(container, "upperdir")))
    layer = await node.client.diff([await node.client.view("k8s.io/1/view", "thin")], [container])
    await node.client.layer("committed", "thin", node.content.files(layer.digest))


def _fill(upper: Path) -> None:
    """Write what a container changes, of all kinds."""
    (upper / "private").mkdir()
    (upper / "private" / "file").write_text("x")
    (upper / "shared").touch()
    os.mknod(upper / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (upper / "server").touch()
    for path in (upper / "private" / "file", upper / "private", upper / "shared"):
        os.chown(path, _USER, _USER)
    (upper / "private" / "file").chmod(0o600)
    (upper / "private").chmod(0o700)
    (upper / "shared").chmod(0o2755)
    os.setxattr(upper / "server", "security.capability", _NET_BIND)


async def _runs_what_was_committed(node: Node) -> None:
    """A committed layer is unpacked as it was, as long as it is not published."""
    container = await node.client.prepare("k8s.io/1/of-commit", "committed")
    (tree,) = (path for path in lowers(container) if path.is_relative_to(node.state / "copies"))
    assert (tree / "private" / "file").stat().st_uid == _USER
    status = (tree / "shared").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (_USER, 0o2755)
    assert (tree / "device").stat().st_rdev == os.makedev(1, 3)
    assert os.getxattr(tree / "server", "security.capability") == _NET_BIND


Step = Callable[[Node], Awaitable[None]]
RUNNING: Sequence[Step] = (_has_the_roots_attributes, _has_deletions, _deletes_what_users_leave)
COMMITTING: Sequence[Step] = (_commits, _runs_what_was_committed)
STARTS = {"SYS_ADMIN", "DAC_OVERRIDE"}
"""Those without which it does not even start: it tries an overlay, in which the kernel makes a directory of mode 0."""
FAILS: dict[str, set[Step]] = {
    "SYS_ADMIN": {*RUNNING, *COMMITTING},
    "DAC_OVERRIDE": {*RUNNING, *COMMITTING},
    "CHOWN": {_has_the_roots_attributes, _runs_what_was_committed},
    "FSETID": {_has_the_roots_attributes, _runs_what_was_committed},
    "FOWNER": {_has_the_roots_attributes, _deletes_what_users_leave, _runs_what_was_committed},
    "MKNOD": {_runs_what_was_committed},
    "SETFCAP": {_runs_what_was_committed},
}
"""What goes wrong without a capability."""


def _capabilities(directory: Path, *, commits: bool) -> list[str]:
    """Return the capabilities that a pod has."""
    rendered = render(overlay(directory, "client-of-the-machine", commits=commits))
    added: list[str] = rendered.container("snapshotter")["securityContext"]["capabilities"]["add"]
    return added


@asynccontextmanager
async def _node(directory: Path, capabilities: Sequence[str], bucket: S3Access) -> AsyncIterator[Node]:
    """Run a snapshotter that has these capabilities and no others."""
    # Paths of sockets are short, hence not below the directory of a test.
    runtime = Path(f"/run/test-{zlib.crc32(os.fsencode(directory)):08x}")
    leases = Leases()
    content = Content(leases.names)
    socket = runtime / "snapshotter.sock"
    bounding = ",".join(("-all", *(f"+{name.lower()}" for name in capabilities)))
    snapshotter = Daemon(
        "snapshotter",
        ["setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", sys.executable, "-m", "services.snapshotter"],
        log=directory / "snapshotter.log",
        env={
            **bucket.environment,
            "SNAPSHOTTER_SOCKET": str(socket),
            "SNAPSHOTTER_STATE": str(directory / "state"),
            "SNAPSHOTTER_CONTAINERD": str(runtime / "containerd.sock"),
            "SNAPSHOTTER_CVMFS_ROOT": str(directory / "cvmfs"),
            "SNAPSHOTTER_REPOSITORIES": "test.example.org",
            "SNAPSHOTTER_PUBLISH_WAIT": "1",
        },
    )

    async def answers() -> bool:
        try:
            async with ContainerdClient.connected(socket) as client:
                await client.list()
        except (OSError, StreamTerminatedError):
            return False
        return True

    repository = Repository(directory / "cvmfs")
    containerd = Server([content, leases])
    with listen(runtime / "containerd.sock", setting="TEST") as listener:
        await containerd.start(sock=listener)
        try:
            await snapshotter.start(answers, timeout=120)
            async with ContainerdClient.connected(socket) as client:
                yield Node(client=client, repository=repository, content=content, state=directory / "state")
        finally:
            await snapshotter.kill()
            containerd.close()


async def _failing(directory: Path, capabilities: Sequence[str], steps: Sequence[Step], bucket: S3Access) -> set[Step]:
    """Do everything, and return what went wrong."""
    failed: set[Step] = set()
    async with _node(directory, capabilities, bucket) as node:
        for step in steps:
            try:
                await step(node)
            except (AssertionError, GRPCError):
                failed.add(step)
    return failed


async def test_without_commits_fewer_are_enough(tmp_path: Path, bucket: S3Access) -> None:
    capabilities = _capabilities(tmp_path / "node", commits=False)
    assert set(capabilities) == {name for name, failing in FAILS.items() if failing & set(RUNNING)}
    assert await _failing(tmp_path, capabilities, RUNNING, bucket) == set()


async def test_with_commits_all_are_enough(tmp_path: Path, bucket: S3Access) -> None:
    capabilities = _capabilities(tmp_path / "node", commits=True)
    assert set(capabilities) == FAILS.keys()
    assert await _failing(tmp_path, capabilities, (*RUNNING, *COMMITTING), bucket) == set()


@pytest.mark.parametrize("missing", sorted(STARTS))
async def test_it_does_not_start_without(tmp_path: Path, bucket: S3Access, missing: str) -> None:
    capabilities = [name for name in FAILS if name != missing]
    with pytest.raises(DaemonError, match="cannot mount the overlay"):
        await _failing(tmp_path, capabilities, (), bucket)


@pytest.mark.parametrize("missing", sorted(FAILS.keys() - STARTS))
async def test_each_one_is_needed(tmp_path: Path, bucket: S3Access, missing: str) -> None:
    capabilities = [name for name in FAILS if name != missing]
    assert await _failing(tmp_path, capabilities, (*RUNNING, *COMMITTING), bucket) == FAILS[missing]
