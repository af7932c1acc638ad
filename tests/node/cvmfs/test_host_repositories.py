"""Repositories that the machine mounts: late, on demand, and with clients that die."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harness.processes import wait_until
from services.common.descriptor import LayerUrl
from services.common.repository_name import RepositoryName
from services.node.cvmfs.host_repositories import HostRepositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.errors import RepositoryError
from tests.node.conftest import LOOKUP_TIMEOUT, Core
from tests.support.automounter import automounted
from tests.support.driver import contents
from tests.support.fuse import served
from tests.support.mounts import mount
from tests.support.repositories import Repository, digest_of


@pytest.mark.usefixtures("mounting")
async def test_the_look_up_is_what_mounts_a_repository(core: Core, cvmfs_root: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "source")
    url = repository.publish("one", {"a": "one"})
    with automounted(cvmfs_root, tmp_path / "source", delay=0.2):
        assert os.listdir(cvmfs_root) == []
        found = await core.find(url)
        assert (found[url] / "a").read_text() == "one"
        assert found[url].is_relative_to(cvmfs_root)
        with pytest.raises(RepositoryError, match=r"other\.example\.org is not usable"):
            await core.find(LayerUrl(f"cvmfs://other.example.org/{digest_of('x')}"))


@pytest.mark.usefixtures("mounting")
async def test_an_automounter_that_takes_too_long_is_not_waited_for(
    core: Core, cvmfs_root: Path, tmp_path: Path
) -> None:
    repository = Repository(tmp_path / "source")
    url = repository.publish("one", {"a": "one"})
    with automounted(cvmfs_root, tmp_path / "source", delay=LOOKUP_TIMEOUT + 1):
        with pytest.raises(RepositoryError, match=r"test\.example\.org does not answer within 5 s"):
            await core.finder.wait([url], holder="test", timeout=60)
        # When it has come, it is used.

        async def mounted() -> bool:
            return os.path.ismount(cvmfs_root / "test.example.org")

        await wait_until(mounted, what="the repository is mounted")
        assert await core.find(url)


@pytest.mark.usefixtures("mounting")
async def test_a_dead_mount_of_the_machines_is_named_as_such(core: Core, cvmfs_root: Path, tmp_path: Path) -> None:
    source = Repository(tmp_path / "source")
    url = source.publish("one", {"a": "one"})
    with served(source.root, cvmfs_root / "test.example.org") as server:
        assert await core.find(url)
        server.kill()
        server.wait()
        with pytest.raises(RepositoryError, match=r"not usable at .*its client process is gone"):
            await core.find(url)


async def test_a_use_is_noted_once_per_holder(cvmfs_root: Path, io: RepositoryIo, repository: Repository) -> None:
    repositories = HostRepositories(root=cvmfs_root, io=io)
    for holder in ("a", "a", "b"):
        await repositories.ensure(repository.name, holder=holder)
    repositories.claim(repository.name, holder="b")
    assert repositories.in_use() == {"test.example.org": 2}
    repositories.release(holder="a")
    repositories.release(holder="a")
    repositories.release(holder="never held")
    assert repositories.in_use() == {"test.example.org": 1}


@pytest.fixture
def mounted(cvmfs_root: Path, mounting: None) -> Path:  # noqa: ARG001 - ends after this
    """A repository that can be unmounted, with a layer."""
    repository = Repository(cvmfs_root)
    mount("-t", "tmpfs", "tmpfs", repository.root)
    repository.publish("one", {"a": "one"})
    return repository.root


def _is_open(directory: Path) -> bool:
    return any(link.is_symlink() and link.readlink() == directory for link in Path("/proc/self/fd").iterdir())


def _expire(point: Path) -> bool:
    """Unmount as an automounter does after a while; return whether it could be done."""
    return subprocess.run(["umount", point], check=False, capture_output=True).returncode == 0


async def test_an_automounter_leaves_what_a_union_stands_on(core: Core, mounted: Path) -> None:
    core.add_thin("thin", None, [f"cvmfs://test.example.org/{digest_of('one')}"])
    layer = core.add("c", "thin", container=True)
    union = await core.mount(layer)
    assert not _expire(mounted)
    # Nor does it when the next process of the driver has taken over.
    again = HostRepositories(root=mounted.parent, io=core.io)
    again.claim(RepositoryName("test.example.org"), holder=layer.id)
    again.adopt()
    core.repositories.release(holder=layer.id)
    await wait_until(lambda: asyncio.sleep(0, _is_open(mounted)), what="the repository is open again")
    assert not _expire(mounted)
    assert contents(union) == {"a": "one"}
    await core.unions.discard(layer.id)
    again.release(holder=layer.id)
    assert _expire(mounted)


async def test_shutting_down_lets_repositories_go(core: Core, mounted: Path) -> None:
    core.add_thin("thin", None, [f"cvmfs://test.example.org/{digest_of('one')}"])
    layer = core.add("c", "thin", container=True)
    union = await core.mount(layer)
    assert not _expire(mounted)
    await core.repositories.shut_down()
    # The union itself is no use of the repository to the kernel.
    assert _expire(mounted)
    assert contents(union) == {"a": "one"}
    await core.unions.discard(layer.id)


async def test_a_repository_that_cannot_be_opened_again_keeps_no_driver_from_starting(
    cvmfs_root: Path, io: RepositoryIo
) -> None:
    repositories = HostRepositories(root=cvmfs_root, io=io)
    repositories.claim(RepositoryName("gone.example.org"), holder="a")
    with capture_logs() as logs:
        repositories.adopt()
        await wait_until(lambda: asyncio.sleep(0, bool(logs)), what="it is logged")
    assert [(entry["event"], entry["repository"]) for entry in logs] == [
        ("used_repository_not_open", "gone.example.org")
    ]
