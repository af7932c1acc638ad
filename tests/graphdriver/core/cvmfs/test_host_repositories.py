"""Repositories that the machine mounts: late, on demand, and with clients that die."""

import os
import time
from pathlib import Path

import pytest

from harness.processes import wait_until
from services.common.descriptor import LayerUrl
from services.graphdriver.core.cvmfs.host_repositories import HostRepositories
from services.graphdriver.core.cvmfs.repository_io import RepositoryIo
from services.graphdriver.errors import RepositoryError
from tests.graphdriver.core.conftest import LOOKUP_TIMEOUT, Core
from tests.support.autofs import automounted
from tests.support.fuse import served
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
        start = time.monotonic()
        with pytest.raises(RepositoryError, match=r"test\.example\.org does not answer within 2 s"):
            await core.finder.wait([url], holder="test", timeout=60)
        assert time.monotonic() - start < LOOKUP_TIMEOUT + 0.5
        # When it has come, it is used.

        async def mounted() -> bool:
            return os.path.ismount(cvmfs_root / "test.example.org")

        await wait_until(mounted, timeout=10, what="the repository is mounted")
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
