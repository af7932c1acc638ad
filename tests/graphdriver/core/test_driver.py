"""The driver as a front end sees it, built by its factory as for real."""

import asyncio
import contextlib
import io
import os
import signal
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from services.common.archive.compression import write_archive
from services.common.archive.errors import ArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.descriptor import LayerUrl
from services.common.digest import Digest
from services.common.layout import LayerLayout, layer_tree, sidecar_path
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar
from services.graphdriver.core.driver import Driver, TreeDiff
from services.graphdriver.core.layers import LayerId, LayerKind
from services.graphdriver.core.local_copies import LocalCopies, LocalCopy
from services.graphdriver.core.mounts import MountThread
from services.graphdriver.errors import (
    LayerExistsError,
    LayerNotPublishedError,
    LineageError,
    RepositoryError,
    UnknownLayerError,
    UnsupportedError,
)
from services.graphdriver.factory import DriverFactory
from services.graphdriver.settings import GraphDriverSettings
from tests.support.fuse import served
from tests.support.mounts import mounts_below
from tests.support.repositories import Repository, thin_json

Build = Callable[[], Driver]


@pytest.fixture
def settings(cvmfs_root: Path) -> GraphDriverSettings:
    return GraphDriverSettings(
        repositories=("test.example.org",), cvmfs_root=cvmfs_root, publish_wait=0.2, lookup_timeout=2
    )


@pytest.fixture
def build(
    settings: GraphDriverSettings,
    home: Path,
    mounting: None,  # noqa: ARG001 - ends after this
) -> Iterator[Build]:
    """Build the driver of one process after the other."""
    with MountThread() as mount_thread:
        factory = DriverFactory(settings=settings, limits=ArchiveLimits(), store=None, mount_thread=mount_thread)
        yield lambda: factory.build(home)


@pytest.fixture
async def driver(build: Build) -> AsyncIterator[Driver]:
    driver = build()
    yield driver
    await driver.shut_down()


@pytest.fixture
def repository(cvmfs_root: Path) -> Repository:
    return Repository(cvmfs_root)


def _tar(files: dict[str, str | None]) -> bytes:
    """Write a layer tar; a file without content is a whiteout."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            place = Path(path)
            member = tarfile.TarInfo(path if content is not None else str(place.with_name(f".wh.{place.name}")))
            member.size = len(content or "")
            member.mode = 0o644
            tar.addfile(member, io.BytesIO((content or "").encode()))
    return buffer.getvalue()


async def _chunks(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def _image(driver: Driver, name: str, parent: str | None, files: dict[str, str | None]) -> LayerId:
    """Load an image's layer."""
    layer_id = LayerId(name)
    await driver.create(layer_id, LayerId(parent) if parent else None, LayerKind.IMAGE)
    await driver.apply(layer_id, _chunks(_tar(files)))
    return layer_id


async def _container(driver: Driver, name: str, parent: str) -> LayerId:
    """Make a container as the engine does, its init layer first."""
    init, layer_id = LayerId(f"{name}-init"), LayerId(name)
    await driver.create(init, LayerId(parent), LayerKind.CONTAINER)
    directory = await driver.get(init, label="")
    (directory / ".dockerenv").touch()
    await driver.put(init)
    await driver.create(layer_id, init, LayerKind.CONTAINER)
    return layer_id


async def _thin(driver: Driver, name: str, *urls: LayerUrl) -> LayerId:
    return await _image(driver, name, None, {"thin.json": thin_json(*urls).decode()})


def _contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() for path in sorted(directory.rglob("*")) if path.is_file()
    }


# Regular images


async def test_a_container_of_a_loaded_image(driver: Driver) -> None:
    await _image(driver, "base", None, {"a": "base", "gone": "base"})
    await _image(driver, "top", "base", {"b": "top", "gone": None})
    container = await _container(driver, "c", "top")
    directory = await driver.get(container, label="")
    assert _contents(directory) == {".dockerenv": "", "a": "base", "b": "top"}
    (directory / "own").write_text("own")
    await driver.put(container)
    assert mounts_below(driver.home) == []
    assert _contents(await driver.get(container, label=""))["own"] == "own"


async def test_a_build_steps_snapshot_is_written_through_get_and_is_a_layer_then(driver: Driver) -> None:
    """BuildKit fills Create'd layers through Get and registers them with no ApplyDiff."""
    await _image(driver, "base", None, {"a": "base"})
    key = LayerId("ofvtjmwdxa1n1ip2k0dj7kjc4")
    await driver.create(key, LayerId("base"), LayerKind.IMAGE)
    directory = await driver.get(key, label="")
    (directory / "built").write_text("built")
    (directory / "a").unlink()
    await driver.put(key)
    assert _contents(await driver.get(await _container(driver, "c", key), label="")) == {
        ".dockerenv": "",
        "built": "built",
    }
    diff = await driver.diff(key, LayerId("base"))
    assert isinstance(diff, TreeDiff)
    assert sorted(os.listdir(diff.tree)) == ["a", "built"]


async def test_a_base_layer_is_written_through_get_too(driver: Driver) -> None:
    """`FROM scratch`."""
    key = LayerId("w6xb8w3vt22rt4s4v3j1k4y5x")
    await driver.create(key, None, LayerKind.IMAGE)
    directory = await driver.get(key, label="")
    (directory / "built").write_text("built")
    await driver.put(key)
    assert (await driver.get(key, label="") / "built").read_text() == "built"
    assert mounts_below(driver.home) == []


async def test_removing_a_mounted_layer_unmounts_it(driver: Driver) -> None:
    """BuildKit removes its views without giving them back."""
    await _image(driver, "base", None, {"a": "base"})
    view = LayerId("view")
    await driver.create(view, LayerId("base"), LayerKind.CONTAINER)
    directory = await driver.get(view, label="")
    with (directory / "a").open():
        await driver.remove(view)
    assert mounts_below(driver.home) == []
    assert not await driver.exists(view)
    await driver.remove(view)
    await driver.put(view)


async def test_errors_name_the_layer(driver: Driver) -> None:
    await _image(driver, "base", None, {"a": "base"})
    with pytest.raises(LayerExistsError, match="layer base exists already"):
        await driver.create(LayerId("base"), None, LayerKind.IMAGE)
    for call in (driver.get(LayerId("x"), label=""), driver.diff(LayerId("x"), None), driver.diff_size(LayerId("x"))):
        with pytest.raises(UnknownLayerError, match="no layer x"):
            await call
    with pytest.raises(UnsupportedError, match=r"layer base can be compared with its parent \(none\) only, not with y"):
        await driver.diff(LayerId("base"), LayerId("y"))


async def test_operations_on_one_layer_come_one_after_the_other(driver: Driver) -> None:
    await _image(driver, "base", None, {"a": "base"})
    container = await _container(driver, "c", "base")
    gets = await asyncio.gather(*(driver.get(container, label="") for _ in range(8)))
    assert len(set(gets)) == 1
    assert len(mounts_below(driver.home)) == 1
    await asyncio.gather(*(driver.put(container) for _ in range(7)))
    assert len(mounts_below(driver.home)) == 1
    await asyncio.gather(driver.put(container), driver.remove(container), driver.exists(container))
    assert mounts_below(driver.home) == []


async def test_many_containers_at_once(driver: Driver) -> None:
    await _image(driver, "base", None, {"a": "base"})
    names = [f"c{number}" for number in range(12)]
    await asyncio.gather(*(_container(driver, name, "base") for name in names))
    directories = await asyncio.gather(*(driver.get(LayerId(name), label="") for name in names))
    assert [_contents(directory)["a"] for directory in directories] == ["base"] * 12
    await asyncio.gather(*(driver.remove(LayerId(name)) for name in names))
    assert mounts_below(driver.home) == []


# Filling layers


async def test_a_layer_is_filled_whole_or_not_at_all(driver: Driver) -> None:
    base = await _image(driver, "base", None, {"old": "old"})
    broken = _tar({"new": "new", "second": "x" * 5000})[:4000]
    with pytest.raises(ArchiveError):
        await driver.apply(base, _chunks(broken))
    assert _contents(await driver.get(base, label="")) == {"old": "old"}
    await driver.apply(base, _chunks(_tar({"new": "new"})))
    assert _contents(await driver.get(base, label="")) == {"new": "new"}


async def test_a_cut_body_is_no_end(driver: Driver) -> None:
    layer_id = LayerId("base")
    await driver.create(layer_id, None, LayerKind.IMAGE)

    async def cut() -> AsyncIterator[bytes]:
        yield _tar({"a": "a"})
        raise ConnectionResetError("cut")

    with pytest.raises(ConnectionResetError):
        await driver.apply(layer_id, cut())
    assert _contents(await driver.get(layer_id, label="")) == {}
    # The engine may have died of what cut the body, and never remove the layer.
    assert sorted(os.listdir(driver.home / "layers/base")) == ["diff", "record.json", "work"]


async def test_an_empty_body_is_refused_and_an_empty_layer_is_not(driver: Driver) -> None:
    layer_id = LayerId("base")
    await driver.create(layer_id, None, LayerKind.IMAGE)
    with pytest.raises((UnsupportedError, ArchiveError), match=r"empty|no end|cut"):
        await driver.apply(layer_id, _chunks(b""))
    content = await driver.apply(layer_id, _chunks(_tar({})))
    assert (content.entries, content.tree_size) == (0, 0)


async def test_a_layer_in_use_is_not_filled(driver: Driver) -> None:
    await _image(driver, "base", None, {"a": "base"})
    key = LayerId("key")
    await driver.create(key, LayerId("base"), LayerKind.IMAGE)
    await driver.get(key, label="")
    with pytest.raises(UnsupportedError, match="layer key is in use"):
        await driver.apply(key, _chunks(_tar({"a": "new"})))


async def test_a_kill_while_a_layer_is_filled_leaves_it_to_be_filled_again(build: Build, driver: Driver) -> None:
    base = await _image(driver, "base", None, {"old": "old"})
    incoming = driver.home / "layers/base/incoming"
    incoming.mkdir()
    (incoming / "half").write_text("half")
    again = build()
    assert not incoming.exists()
    assert _contents(await again.get(base, label="")) == {"old": "old"}
    await again.apply(base, _chunks(_tar({"new": "new"})))
    assert _contents(await again.get(base, label="")) == {"new": "new"}
    assert not incoming.exists()


# Sizes


async def test_the_size_counts_hard_links_once_and_what_a_hole_says(driver: Driver) -> None:
    await _image(driver, "base", None, {"a": "base"})
    container = await _container(driver, "c", "base")
    directory = await driver.get(container, label="")
    (directory / "d").mkdir()
    (directory / "d/file").write_text("x" * 1000)
    os.link(directory / "d/file", directory / "hard")
    with (directory / "sparse").open("wb") as file:
        file.truncate(100_000)
    (directory / "link").symlink_to("12345")
    (directory / "a").unlink()
    assert await driver.diff_size(container) == 1000 + 100_000 + 5


async def test_the_size_of_a_container_at_work(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker ps -s`: what vanishes while it is counted does not count."""
    await _image(driver, "base", None, {"a": "base"})
    container = await _container(driver, "c", "base")
    directory = await driver.get(container, label="")
    (directory / "kept").write_text("kept")
    (directory / "vanishing").mkdir()
    (directory / "file").write_text("x")
    scandir = os.scandir

    def vanish(path: bytes) -> object:
        found = contextlib.nullcontext(list(scandir(path)))
        monkeypatch.undo()
        (directory / "vanishing").rmdir()
        (directory / "file").unlink()
        return found

    monkeypatch.setattr(os, "scandir", vanish)
    assert await driver.diff_size(container) == 4


# Thin images


async def test_a_thin_container(driver: Driver, repository: Repository) -> None:
    one = repository.publish("one", {"a": "one", "gone": "one"})
    two = repository.publish("two", {"b": "two"}, whiteouts=[b"gone"])
    await _thin(driver, "thin", one, two)
    container = await _container(driver, "c", "thin")
    directory = await driver.get(container, label="")
    assert _contents(directory) == {".dockerenv": "", "a": "one", "b": "two"}
    status = dict(await driver.status())
    assert status["Repositories in use"] == "test.example.org (1)"
    assert status["Mounted unions"] == "1"
    await driver.put(container)
    assert dict(await driver.status())["Repositories in use"] == "none"


async def test_the_layer_that_holds_the_descriptor_shows_it(driver: Driver, repository: Repository) -> None:
    """Push and save need it, also where no repository can be reached."""
    await _thin(driver, "thin", repository.url("not published"))
    assert os.listdir(await driver.get(LayerId("thin"), label="")) == ["thin.json"]
    await driver.put(LayerId("thin"))
    await _image(driver, "committed", "thin", {"thin.json": thin_json(repository.url("neither")).decode()})
    assert os.listdir(await driver.get(LayerId("committed"), label="")) == ["thin.json"]


async def test_the_layers_of_an_image_that_mixes_are_shown(driver: Driver, repository: Repository) -> None:
    await _thin(driver, "thin", repository.publish("one", {"a": "one"}))
    await _image(driver, "local", "thin", {"b": "local"})
    directory = await driver.get(LayerId("local"), label="")
    assert _contents(directory) == {"a": "one", "b": "local"}
    # Written through the view, as a build step does.
    (directory / "built").write_text("built")
    diff = await driver.diff(LayerId("local"), LayerId("thin"))
    assert isinstance(diff, TreeDiff)
    assert sorted(os.listdir(diff.tree)) == ["b", "built"]


async def test_a_layer_that_is_not_published_fails_the_get_and_leaves_nothing(
    driver: Driver, repository: Repository
) -> None:
    await _thin(driver, "thin", repository.publish("one"), repository.url("two"))
    init = LayerId("c-init")
    await driver.create(init, LayerId("thin"), LayerKind.CONTAINER)
    with pytest.raises(LayerNotPublishedError, match=r"1 of 2 layers did not show within 0\.2 s"):
        await driver.get(init, label="")
    assert mounts_below(driver.home) == []
    assert dict(await driver.status())["Repositories in use"] == "none"
    repository.publish("two", {"b": "two"})
    assert _contents(await driver.get(init, label="")) == {"b": "two"}


async def test_an_unusable_descriptor_fails_the_container_and_can_be_removed(driver: Driver) -> None:
    await _image(driver, "thin", None, {"thin.json": "{"})
    init = LayerId("c-init")
    await driver.create(init, LayerId("thin"), LayerKind.CONTAINER)
    with pytest.raises(LineageError, match=r"layer thin: thin\.json is not a thin image descriptor"):
        await driver.get(init, label="")
    await driver.put(init)
    await driver.remove(init)
    await driver.remove(LayerId("thin"))
    assert not await driver.exists(LayerId("thin"))


async def test_changes_of_a_thin_container(driver: Driver, repository: Repository) -> None:
    await _thin(driver, "thin", repository.publish("one", {"a": "one", "gone": "one"}))
    container = await _container(driver, "c", "thin")
    directory = await driver.get(container, label="")
    (directory / "a").write_text("changed")
    (directory / "gone").unlink()
    (directory / "new").write_text("new")
    found = await driver.changes(container, LayerId("c-init"))
    assert [f"{'CAD'[change.kind]} {change.path.decode()}" for change in found] == ["C /a", "D /gone", "A /new"]
    assert dict(await driver.status())["Repositories in use"] == "test.example.org (1)"
    await driver.put(container)
    assert dict(await driver.status())["Repositories in use"] == "none"


async def test_metadata_tell_what_a_union_is_made_of(driver: Driver, repository: Repository) -> None:
    one, two = repository.publish("one"), repository.publish("two")
    await _thin(driver, "thin", one, two)
    await _image(driver, "local", "thin", {"b": "local"})
    container = await _container(driver, "c", "local")
    metadata = await driver.metadata(container)
    layers = driver.home / "layers"
    assert metadata == {
        "MergedDir": str(layers / "c/merged"),
        "UpperDir": str(layers / "c/diff"),
        "WorkDir": str(layers / "c/work"),
        "LowerDir": f"{layers / 'c-init/diff'}:{layers / 'local/diff'}",
        "ThinLayers": f'["{two}", "{one}"]',
    }
    assert "ThinLayers" not in await driver.metadata(LayerId("thin"))


async def test_a_union_on_a_dead_client_is_replaced_at_the_next_get(
    driver: Driver, cvmfs_root: Path, tmp_path: Path
) -> None:
    """`docker restart` keeps the union mounted from the old run to the new one."""
    source = Repository(tmp_path / "source")
    point = cvmfs_root / "test.example.org"
    await _thin(driver, "thin", source.publish("one", {"a": "one"}))
    with served(source.root, point) as server:
        container = await _container(driver, "c", "thin")
        directory = await driver.get(container, label="")
        (directory / "own").write_text("own")
        server.kill()
        server.wait()
        with pytest.raises(RepositoryError, match="its client process is gone"):
            await driver.get(container, label="")
    with served(source.root, point):
        for _ in range(2):
            assert await driver.get(container, label="") == directory
            assert _contents(directory) == {".dockerenv": "", "a": "one", "own": "own"}
            assert len([mounted for mounted in mounts_below(driver.home) if mounted == str(directory)]) == 1
        # The holder from before has not given it back.
        for _ in range(3):
            assert _contents(directory)["a"] == "one"
            await driver.put(container)
        assert mounts_below(driver.home) == []


async def test_a_union_on_a_client_that_hangs_is_no_answer(driver: Driver, cvmfs_root: Path, tmp_path: Path) -> None:
    source = Repository(tmp_path / "source")
    await _thin(driver, "thin", source.publish("one", {"a": "one"}))
    with served(source.root, cvmfs_root / "test.example.org") as server:
        container = await _container(driver, "c", "thin")
        directory = await driver.get(container, label="")
        server.send_signal(signal.SIGSTOP)
        with pytest.raises(RepositoryError, match="does not answer within 2 s: the CVMFS client hangs"):
            await driver.get(container, label="")
        server.send_signal(signal.SIGCONT)
        assert await driver.get(container, label="") == directory
        # The failed one does not count.
        for _ in range(2):
            assert mounts_below(driver.home)
            await driver.put(container)
        assert mounts_below(driver.home) == []


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
    await _thin(driver, "thin", repository.publish("one", {"a": "one"}), url)
    container = await _container(driver, "c", "thin")
    directory = await driver.get(container, label="")
    assert _contents(directory) == {".dockerenv": "", "a": "one", "new": "committed"}
    await driver.retire_copies()
    assert copy.exists()
    assert dict(await driver.status())["Layers waiting to be published"] == "1"
    _publish(repository, digest, {"new": "committed"})
    # The running container stands on the copy's tree, which stays as long as it runs.
    await driver.retire_copies()
    assert sorted(os.listdir(copy)) == ["record.json", "tree"]
    assert _contents(directory)["new"] == "committed"
    await driver.put(container)
    await driver.retire_copies()
    assert not copy.exists()
    assert [link for link in (driver.home / "l").iterdir() if not link.exists()] == []
    assert dict(await driver.status())["Layers waiting to be published"] == "0"
    assert _contents(await driver.get(container, label=""))["new"] == "committed"
    await driver.shut_down()


async def test_a_copy_stands_in_where_its_repository_cannot_be_reached(
    build: Build, committed: tuple[Digest, LayerUrl]
) -> None:
    driver = build()  # there is no repository at all
    await _thin(driver, "thin", committed[1])
    container = await _container(driver, "c", "thin")
    assert _contents(await driver.get(container, label=""))["new"] == "committed"
    await driver.retire_copies()
    assert (driver.home / "copies" / committed[0] / "archive").exists()
    await driver.shut_down()


async def test_copies_in_use_are_known_after_a_restart(
    build: Build, committed: tuple[Digest, LayerUrl], repository: Repository
) -> None:
    digest, url = committed
    before = build()
    await _thin(before, "thin", url)
    container = await _container(before, "c", "thin")
    directory = await before.get(container, label="")
    after = build()
    await after.resume()
    assert dict(await after.status())["Repositories in use"] == "test.example.org (1)"
    _publish(repository, digest, {"new": "committed"})
    await after.retire_copies()
    assert _contents(directory)["new"] == "committed"
    await after.put(container)
    assert mounts_below(after.home) == []
    await after.retire_copies()
    assert not (after.home / "copies" / digest).exists()
    await after.shut_down()


# Restarts


async def test_running_containers_go_on_over_a_restart(build: Build, repository: Repository) -> None:
    before = build()
    await _thin(before, "thin", repository.publish("one", {"a": "one"}))
    await _image(before, "base", None, {"a": "base"})
    running = [await _container(before, name, parent) for name, parent in (("c1", "thin"), ("c2", "base"))]
    stopped = await _container(before, "c3", "thin")
    directories = [await before.get(container, label="") for container in running]
    after = build()
    await after.resume()
    # exec and cp.
    for container, directory in zip(running, directories, strict=True):
        assert await after.get(container, label="") == directory
        await after.put(container)
        (directory / "still").write_text("writable")
    assert _contents(await after.get(stopped, label=""))["a"] == "one"
    assert len(mounts_below(after.home)) == 3
    for container in (*running, stopped):
        await after.put(container)
    assert mounts_below(after.home) == []
    assert dict(await after.status())["Repositories in use"] == "none"


async def test_a_container_that_was_only_created_starts_after_a_restart(build: Build, repository: Repository) -> None:
    """The 2018 driver remembered the direct parent only, and mounted nothing."""
    before = build()
    await _thin(before, "thin", repository.publish("one", {"a": "one"}))
    container = await _container(before, "c", "thin")
    after = build()
    await after.resume()
    assert _contents(await after.get(container, label="")) == {".dockerenv": "", "a": "one"}
    await after.shut_down()


async def test_a_start_in_spite_of_a_mounted_layer_whose_lineage_is_broken(build: Build) -> None:
    before = build()
    await _image(before, "base", None, {"a": "base"})
    container = await _container(before, "c", "base")
    directory = await before.get(container, label="")
    (before.home / "layers/base/record.json").rename(before.home / "kept")
    after = build()
    await after.resume()
    with pytest.raises(LineageError, match="layer base, an ancestor of c, is missing"):
        await after.metadata(container)
    (before.home / "kept").rename(before.home / "layers/base/record.json")
    assert _contents(directory)["a"] == "base"
    await after.put(container)
    assert mounts_below(after.home) == []


async def test_shutting_down_unmounts_everything_and_can_be_followed_by_work(
    driver: Driver, repository: Repository
) -> None:
    await _thin(driver, "thin", repository.publish("one", {"a": "one"}))
    container = await _container(driver, "c", "thin")
    for _ in range(3):
        await driver.get(container, label="")
    await driver.shut_down()
    assert mounts_below(driver.home) == []
    assert dict(await driver.status())["Mounted unions"] == "0"
    assert _contents(await driver.get(container, label=""))["a"] == "one"


async def test_status_before_anything_happened(driver: Driver) -> None:
    assert await driver.status() == [
        ("Home", str(driver.home)),
        ("Repositories", "test.example.org"),
        ("Repositories in use", "none"),
        ("Mounted unions", "0"),
        ("Layers waiting to be published", "0"),
        ("Local copies", "0 bytes"),
    ]


async def test_the_layers_directory_is_the_engines_only(driver: Driver) -> None:
    await _image(driver, "base", None, {"a": "base"})
    for name in ("", "layers", "layers/base", "copies", "spool", "views"):
        assert stat.S_IMODE((driver.home / name).stat().st_mode) & 0o007 == 0, name
