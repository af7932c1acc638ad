"""Local copies of committed layers, and restarts of the driver under containers."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.archive.compression import write_archive
from services.common.archive.limits import ArchiveLimits
from services.common.descriptor import LayerUrl
from services.common.digest import Digest
from services.common.layout import LayerLayout, layer_tree, sidecar_path
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar
from services.graphdriver.factory import DriverFactory
from services.graphdriver.settings import GraphDriverSettings
from services.node.driver import Driver
from services.node.errors import LayerNotPublishedError, LineageError
from services.node.layers import LayerId, LayerKind
from services.node.local_copies import LocalCopies, LocalCopy
from tests.node.conftest import Build
from tests.support.driver import contents, load_layer, load_thin, make_container
from tests.support.mounts import full_disk, mounts_below
from tests.support.repositories import Repository

# Local copies


@contextlib.contextmanager
def _copy(home: Path, tmp_path: Path, files: dict[str, str]) -> Iterator[tuple[Digest, LayerUrl]]:
    """Keep a copy of a layer, as a commit does that has just uploaded it."""
    tree = tmp_path / "committed"
    tree.mkdir()
    for name, content in files.items():
        (tree / name).write_text(content)
    copies = LocalCopies(home=home, limits=ArchiveLimits())
    archive = write_archive(tree, copies.new_spool() / "new")
    url = LayerUrl.of(RepositoryName("test.example.org"), archive.digest, LayerLayout.FLAT)
    copies.keep(LocalCopy(archive, url))
    yield archive.digest, url


def _publish(repository: Repository, digest: Digest, files: dict[str, str]) -> None:
    tree = repository.root / layer_tree(digest)
    tree.mkdir(parents=True)
    for name, content in files.items():
        (tree / name).write_text(content)
    (repository.root / digest).symlink_to(layer_tree(digest))
    sidecar = LayerSidecar(digest=digest, diff_id=digest, archive_size=1, uncompressed_size=1, tree_size=1, entries=1)
    (repository.root / sidecar_path(digest)).write_bytes(sidecar.encode())


@pytest.fixture
def committed(home: Path, tmp_path: Path, build: Build) -> Iterator[tuple[Digest, LayerUrl]]:
    build()
    with _copy(home, tmp_path, {"new": "committed"}) as copy:
        yield copy


async def test_a_committed_layer_runs_before_it_is_published_and_after(
    build: Build, committed: tuple[Digest, LayerUrl], repository: Repository
) -> None:
    digest, url = committed
    driver = build()
    copy = driver.home / "copies" / digest
    await load_thin(driver, "thin", repository.publish("one", {"a": "one"}), url)
    container = await make_container(driver, "c", "thin")
    directory = await driver.get(container, label="")
    assert contents(directory) == {".dockerenv": "", "a": "one", "new": "committed"}
    await driver.house.retire_copies()
    assert copy.exists()
    assert dict(await driver.reports.status())["Layers waiting to be published"] == "1"
    _publish(repository, digest, {"new": "committed"})
    # The running container stands on the copy's tree, which stays as long as it runs.
    await driver.house.retire_copies()
    assert sorted(os.listdir(copy)) == ["record.json", "tree"]
    assert contents(directory)["new"] == "committed"
    await driver.put(container)
    await driver.house.retire_copies()
    assert not copy.exists()
    assert dict(await driver.reports.status())["Layers waiting to be published"] == "0"
    assert contents(await driver.get(container, label=""))["new"] == "committed"
    await driver.shut_down()


async def test_a_copy_stands_in_where_its_repository_cannot_be_reached(
    build: Build, committed: tuple[Digest, LayerUrl]
) -> None:
    driver = build()  # there is no repository at all
    await load_thin(driver, "thin", committed[1])
    container = await make_container(driver, "c", "thin")
    assert contents(await driver.get(container, label=""))["new"] == "committed"
    await driver.house.retire_copies()
    assert (driver.home / "copies" / committed[0] / "archive").exists()
    await driver.shut_down()


async def test_a_damaged_copy_is_no_reason_not_to_wait_for_its_layer(
    build: Build, committed: tuple[Digest, LayerUrl], repository: Repository, settings: GraphDriverSettings
) -> None:
    """As after a power failure, or on a full disk."""
    digest, url = committed
    driver = build()
    archive = driver.home / "copies" / digest / "archive"
    archive.write_bytes(archive.read_bytes()[:20])
    await load_thin(driver, "thin", url)
    container = LayerId("c")
    await driver.create(container, LayerId("thin"), LayerKind.CONTAINER)
    complaint = rf"did not show within .*; the local copy of layer {digest} is of no use: .*cut"
    with pytest.raises(LayerNotPublishedError, match=complaint):
        await driver.get(container, label="")
    patient = settings.model_copy(update={"publish_wait": 30})
    driver = DriverFactory(settings=patient, limits=ArchiveLimits(), store=None).build(driver.home)
    getting = asyncio.create_task(driver.get(container, label=""))
    _publish(repository, digest, {"new": "committed"})
    assert contents(await getting)["new"] == "committed"
    await driver.shut_down()


async def test_a_damaged_layer_keeps_no_copies_of_others(
    build: Build, home: Path, committed: tuple[Digest, LayerUrl], repository: Repository, tmp_path: Path
) -> None:
    damaged, url = committed
    (tmp_path / "other").mkdir()
    with _copy(home, tmp_path / "other", {"other": "committed"}) as (digest, _):
        pass
    driver = build()
    for layer, files in ((damaged, {"new": "committed"}), (digest, {"other": "committed"})):
        _publish(repository, layer, files)
    (repository.root / sidecar_path(damaged)).write_bytes(b"")
    await driver.house.retire_copies()
    assert os.listdir(home / "copies") == [damaged]
    # Which runs on, and says what is wrong where there is no copy of it.
    await load_thin(driver, "thin", url)
    container = await make_container(driver, "c", "thin")
    assert contents(await driver.get(container, label=""))["new"] == "committed"
    await driver.shut_down()


async def test_copies_in_use_are_known_after_a_restart(
    build: Build, committed: tuple[Digest, LayerUrl], repository: Repository
) -> None:
    digest, url = committed
    before = build()
    await load_thin(before, "thin", url)
    container = await make_container(before, "c", "thin")
    directory = await before.get(container, label="")
    after = build()
    await after.resume()
    assert dict(await after.reports.status())["Repositories in use"] == "test.example.org (1)"
    _publish(repository, digest, {"new": "committed"})
    await after.house.retire_copies()
    assert contents(directory)["new"] == "committed"
    await after.put(container)
    assert mounts_below(after.home) == []
    await after.house.retire_copies()
    assert not (after.home / "copies" / digest).exists()
    await after.shut_down()


# Restarts


async def test_running_containers_go_on_over_a_restart(build: Build, repository: Repository) -> None:
    before = build()
    await load_thin(before, "thin", repository.publish("one", {"a": "one"}))
    await load_layer(before, "base", None, {"a": "base"})
    running = [await make_container(before, name, parent) for name, parent in (("c1", "thin"), ("c2", "base"))]
    stopped = await make_container(before, "c3", "thin")
    directories = [await before.get(container, label="") for container in running]
    after = build()
    await after.resume()
    # exec and cp.
    for container, directory in zip(running, directories, strict=True):
        assert await after.get(container, label="") == directory
        await after.put(container)
        (directory / "still").write_text("writable")
    assert contents(await after.get(stopped, label=""))["a"] == "one"
    assert len(mounts_below(after.home)) == 3
    for container in (*running, stopped):
        await after.put(container)
    assert mounts_below(after.home) == []
    assert dict(await after.reports.status())["Repositories in use"] == "none"


async def test_a_container_that_was_only_created_starts_after_a_restart(build: Build, repository: Repository) -> None:
    """The 2018 driver remembered the direct parent only, and mounted nothing."""
    before = build()
    await load_thin(before, "thin", repository.publish("one", {"a": "one"}))
    container = await make_container(before, "c", "thin")
    after = build()
    await after.resume()
    assert contents(await after.get(container, label="")) == {".dockerenv": "", "a": "one"}
    await after.shut_down()


async def test_a_start_in_spite_of_a_mounted_layer_whose_lineage_is_broken(build: Build) -> None:
    before = build()
    await load_layer(before, "base", None, {"a": "base"})
    container = await make_container(before, "c", "base")
    directory = await before.get(container, label="")
    (before.home / "layers/base/record.json").rename(before.home / "kept")
    after = build()
    await after.resume()
    with pytest.raises(LineageError, match=r"base/record\.json is damaged: there is no such file"):
        await after.reports.metadata(container)
    (before.home / "kept").rename(before.home / "layers/base/record.json")
    assert contents(directory)["a"] == "base"
    await after.put(container)
    assert mounts_below(after.home) == []


async def test_shutting_down_unmounts_everything_and_can_be_followed_by_work(
    driver: Driver, repository: Repository
) -> None:
    await load_thin(driver, "thin", repository.publish("one", {"a": "one"}))
    container = await make_container(driver, "c", "thin")
    for _ in range(3):
        await driver.get(container, label="")
    await driver.shut_down()
    assert mounts_below(driver.home) == []
    assert dict(await driver.reports.status())["Mounted unions"] == "0"
    assert contents(await driver.get(container, label=""))["a"] == "one"


async def test_a_full_disk_does_not_keep_the_driver_from_starting(build: Build, home: Path) -> None:
    """Whoever wants to make room has to be able to remove a container."""
    with full_disk(home) as fill:
        before = build()
        await load_layer(before, "base", None, {"a": "base"})
        containers = [await make_container(before, name, "base") for name in ("c", "d")]
        running = await before.get(containers[0], label="")
        # Too little for an overlay, and then nothing at all.
        for left in (7, 0):
            fill(left)
            driver = build()
            await driver.resume()
            assert contents(running)["a"] == "base"
            await driver.remove(containers.pop())
        assert mounts_below(home) == []
