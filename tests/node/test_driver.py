"""The driver as a front end sees it, built by its factory as for real."""

import asyncio
import contextlib
import io
import os
import signal
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.common.archive.errors import ArchiveError
from services.common.archive.pack import pack
from services.node.changes import Change, changes
from services.node.diffs import TreeDiff
from services.node.driver import Driver
from services.node.errors import (
    InterruptedWorkError,
    LayerExistsError,
    LayerNotPublishedError,
    LineageError,
    RepositoryError,
    UnknownLayerError,
    UnsupportedError,
)
from services.node.layers import LayerId, LayerKind
from tests.node.conftest import Build
from tests.support.deep import deepen, innermost, removed_afterwards
from tests.support.driver import chunks, contents, load_layer, load_thin, make_container, tar_of
from tests.support.fuse import served, stop
from tests.support.mounts import mounts_below
from tests.support.repositories import Repository, newer_thin_json, thin_json

# Regular images


async def test_a_container_of_a_loaded_image(driver: Driver) -> None:
    await load_layer(driver, "base", None, {"a": "base", "gone": "base"})
    await load_layer(driver, "top", "base", {"b": "top", "gone": None})
    container = await make_container(driver, "c", "top")
    directory = await driver.get(container, label="")
    assert contents(directory) == {".dockerenv": "", "a": "base", "b": "top"}
    (directory / "own").write_text("own")
    await driver.put(container)
    assert mounts_below(driver.home) == []
    assert contents(await driver.get(container, label=""))["own"] == "own"


async def test_a_build_steps_snapshot_is_written_through_get_and_is_a_layer_then(driver: Driver) -> None:
    """BuildKit fills Create'd layers through Get and registers them with no ApplyDiff."""
    await load_layer(driver, "base", None, {"a": "base"})
    key = LayerId("ofvtjmwdxa1n1ip2k0dj7kjc4")
    await driver.create(key, LayerId("base"), LayerKind.IMAGE)
    directory = await driver.get(key, label="")
    (directory / "built").write_text("built")
    (directory / "a").unlink()
    await driver.put(key)
    assert contents(await driver.get(await make_container(driver, "c", key), label="")) == {
        ".dockerenv": "",
        "built": "built",
    }
    diff = await driver.diffs.diff(key, LayerId("base"))
    assert isinstance(diff, TreeDiff)
    with diff.opened() as tree:
        assert sorted(os.listdir(tree)) == ["a", "built"]


async def test_an_images_layer_is_compared_with_an_ancestor(driver: Driver, repository: Repository) -> None:
    """`docker build --squash` asks for it."""
    await load_layer(driver, "base", None, {"a": "base", "b": "base"})
    await load_layer(driver, "one", "base", {"c": "one", "d": "one", "a": None})
    two = await load_layer(driver, "two", "one", {"d": None, "e": "two"})
    for ancestor, names in (("base", ["a", "c", "e"]), (None, ["b", "c", "e"])):
        diff = await driver.diffs.diff(two, LayerId(ancestor) if ancestor else None)
        assert isinstance(diff, TreeDiff)
        with diff.opened() as tree:
            assert sorted(os.listdir(tree)) == names
            assert (tree / "a").is_char_device() == (ancestor is not None)
    assert os.listdir(driver.home / "trash") == []
    # A descriptor stands for all that lies below it; what lies on top of one cannot be told from here.
    await load_thin(driver, "thin", repository.publish("layer", {"f": "published"}))
    await load_layer(driver, "step", "thin", {"thin.json": thin_json(repository.url("layer")).decode()})
    diff = await driver.diffs.diff(LayerId("step"), None)
    assert isinstance(diff, TreeDiff)
    with diff.opened() as tree:
        assert os.listdir(tree) == ["thin.json"]
    local = await load_layer(driver, "local", "step", {"g": "local"})
    with pytest.raises(UnsupportedError, match="a thin image's: commit a container of the image instead"):
        await driver.diffs.diff(local, LayerId("thin"))
    for foreign in ("none", "local", "two"):
        with pytest.raises(UnsupportedError, match="can be compared with its parent step only"):
            await driver.diffs.diff(local, LayerId(foreign))


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
    await load_layer(driver, "base", None, {"a": "base"})
    view = LayerId("view")
    await driver.create(view, LayerId("base"), LayerKind.CONTAINER)
    directory = await driver.get(view, label="")
    with (directory / "a").open():
        await driver.remove(view)
    assert mounts_below(driver.home) == []
    assert not await driver.exists(view)
    await driver.remove(view)
    await driver.put(view)


@pytest.mark.parametrize("record", [None, "", "{}"])
async def test_a_layer_with_a_damaged_record_can_be_given_back_and_removed(
    build: Build, driver: Driver, record: str | None
) -> None:
    await load_layer(driver, "base", None, {"a": "base"})
    container = await make_container(driver, "c", "base")
    directory = await driver.get(container, label="")
    place = driver.home / "layers/c/record.json"
    place.unlink()
    if record is not None:
        place.write_text(record)
    again = build()
    await again.resume()
    assert await again.exists(container)
    with pytest.raises(LineageError, match=r"c/record\.json is damaged.*remove the image or container of layer c"):
        await again.get(container, label="")
    assert contents(directory)["a"] == "base"
    await again.put(container)
    assert mounts_below(driver.home) == []
    await again.house.tidy()
    await again.remove(container)
    assert not await again.exists(container)
    # What stands on one that is damaged can be removed, too.
    place = driver.home / "layers/c-init/record.json"
    place.write_text("")
    await build().remove(LayerId("c-init"))
    assert os.listdir(driver.home / "layers") == ["base"]


@pytest.mark.parametrize("depth", [400, 2_500])
async def test_a_container_with_a_tree_of_any_depth(build: Build, driver: Driver, depth: int) -> None:
    """What overlayfs lets it make can be listed, measured, committed and removed."""
    await load_layer(driver, "base", None, {"a": "base"})
    container = await make_container(driver, "c", "base")
    with removed_afterwards(driver.home):
        directory = await driver.get(container, label="")
        deepen(directory, depth)
        descriptor = innermost(directory)
        file = os.open("file", os.O_WRONLY, dir_fd=descriptor)
        os.truncate(file, 1234)
        os.close(file)
        os.close(descriptor)
        found = await driver.diffs.changes(container, LayerId("c-init"))
        assert len(found) == depth + 1
        assert await driver.diffs.size(container) == 1234
        diff = await driver.diffs.diff(container, LayerId("c-init"))
        assert isinstance(diff, TreeDiff)
        with diff.opened() as tree:
            assert pack(tree, io.BytesIO()).entries == depth + 1
        await driver.remove(container)
        assert os.listdir(driver.home / "trash") == []
        # One that a kill left, or an earlier version that could not remove it.
        (driver.home / "trash/c.0123/diff").mkdir(parents=True)
        deepen(driver.home / "trash/c.0123/diff", depth)
        await build().resume()
        assert os.listdir(driver.home / "trash") == []


async def test_a_layer_that_is_being_filled_can_be_removed(driver: Driver) -> None:
    """The engine takes a container or image away whose content may never come."""
    layer = LayerId("a")
    await driver.create(layer, None, LayerKind.IMAGE)
    begun = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield tar_of({"file": "content"})[:700]
        begun.set()
        await asyncio.Event().wait()

    filling = asyncio.create_task(driver.apply(layer, stalled()))
    queued = asyncio.create_task(driver.apply(layer, stalled()))
    await begun.wait()
    await asyncio.wait_for(driver.remove(layer), 120)
    for task in (filling, queued):
        with pytest.raises(InterruptedWorkError, match="layer a was removed while it was being filled"):
            await task
    assert not await driver.exists(layer)
    assert os.listdir(driver.home / "trash") == os.listdir(driver.home / "layers") == []
    await load_layer(driver, "a", None, {"file": "content"})


async def test_a_filling_that_is_given_up_is_no_removal(driver: Driver) -> None:
    layer = LayerId("a")
    await driver.create(layer, None, LayerKind.IMAGE)

    async def stalled() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    filling = asyncio.create_task(driver.apply(layer, stalled()))
    await asyncio.sleep(0)
    filling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await filling
    assert await driver.exists(layer)
    await driver.apply(layer, chunks(tar_of({"file": "content"})))


async def test_errors_name_the_layer(driver: Driver) -> None:
    await load_layer(driver, "base", None, {"a": "base"})
    with pytest.raises(LayerExistsError, match="layer base exists already"):
        await driver.create(LayerId("base"), None, LayerKind.IMAGE)
    for call in (
        driver.get(LayerId("x"), label=""),
        driver.diffs.diff(LayerId("x"), None),
        driver.diffs.size(LayerId("x")),
    ):
        with pytest.raises(UnknownLayerError, match="no layer x"):
            await call
    with pytest.raises(UnsupportedError, match=r"layer base can be compared with its parent \(none\) only, not with y"):
        await driver.diffs.diff(LayerId("base"), LayerId("y"))


async def test_operations_on_one_layer_come_one_after_the_other(driver: Driver) -> None:
    await load_layer(driver, "base", None, {"a": "base"})
    container = await make_container(driver, "c", "base")
    gets = await asyncio.gather(*(driver.get(container, label="") for _ in range(8)))
    assert len(set(gets)) == 1
    assert len(mounts_below(driver.home)) == 1
    await asyncio.gather(*(driver.put(container) for _ in range(7)))
    assert len(mounts_below(driver.home)) == 1
    await asyncio.gather(driver.put(container), driver.remove(container), driver.exists(container))
    assert mounts_below(driver.home) == []


async def test_many_containers_at_once(driver: Driver) -> None:
    await load_layer(driver, "base", None, {"a": "base"})
    names = [f"c{number}" for number in range(12)]
    await asyncio.gather(*(make_container(driver, name, "base") for name in names))
    directories = await asyncio.gather(*(driver.get(LayerId(name), label="") for name in names))
    assert [contents(directory)["a"] for directory in directories] == ["base"] * 12
    await asyncio.gather(*(driver.remove(LayerId(name)) for name in names))
    assert mounts_below(driver.home) == []


# Filling layers


async def test_a_layer_is_filled_whole_or_not_at_all(driver: Driver) -> None:
    base = await load_layer(driver, "base", None, {"old": "old"})
    broken = tar_of({"new": "new", "second": "x" * 5000})[:4000]
    with pytest.raises(ArchiveError):
        await driver.apply(base, chunks(broken))
    assert contents(await driver.get(base, label="")) == {"old": "old"}
    await driver.apply(base, chunks(tar_of({"new": "new"})))
    assert contents(await driver.get(base, label="")) == {"new": "new"}


async def test_a_cut_body_is_no_end(driver: Driver) -> None:
    layer_id = LayerId("base")
    await driver.create(layer_id, None, LayerKind.IMAGE)

    async def cut() -> AsyncIterator[bytes]:
        yield tar_of({"a": "a"})
        raise ConnectionResetError("cut")

    with pytest.raises(ConnectionResetError):
        await driver.apply(layer_id, cut())
    assert contents(await driver.get(layer_id, label="")) == {}
    # The engine may have died of what cut the body, and never remove the layer.
    assert sorted(os.listdir(driver.home / "layers/base")) == ["diff", "record.json", "work"]


async def test_an_empty_body_is_refused_and_an_empty_layer_is_not(driver: Driver) -> None:
    layer_id = LayerId("base")
    await driver.create(layer_id, None, LayerKind.IMAGE)
    with pytest.raises((UnsupportedError, ArchiveError), match=r"empty|no end|cut"):
        await driver.apply(layer_id, chunks(b""))
    content = await driver.apply(layer_id, chunks(tar_of({})))
    assert (content.entries, content.tree_size) == (0, 0)


async def test_a_layer_in_use_is_not_filled(driver: Driver) -> None:
    await load_layer(driver, "base", None, {"a": "base"})
    key = LayerId("key")
    await driver.create(key, LayerId("base"), LayerKind.IMAGE)
    await driver.get(key, label="")
    with pytest.raises(UnsupportedError, match="layer key is in use"):
        await driver.apply(key, chunks(tar_of({"a": "new"})))


async def test_a_kill_while_a_layer_is_filled_leaves_it_to_be_filled_again(build: Build, driver: Driver) -> None:
    base = await load_layer(driver, "base", None, {"old": "old"})
    incoming = driver.home / "layers/base/incoming"
    incoming.mkdir()
    (incoming / "half").write_text("half")
    again = build()
    assert not incoming.exists()
    assert contents(await again.get(base, label="")) == {"old": "old"}
    await again.apply(base, chunks(tar_of({"new": "new"})))
    assert contents(await again.get(base, label="")) == {"new": "new"}
    assert not incoming.exists()


# Sizes


async def test_the_size_counts_hard_links_once_and_what_a_hole_says(driver: Driver) -> None:
    await load_layer(driver, "base", None, {"a": "base"})
    container = await make_container(driver, "c", "base")
    directory = await driver.get(container, label="")
    (directory / "d").mkdir()
    (directory / "d/file").write_text("x" * 1000)
    os.link(directory / "d/file", directory / "hard")
    with (directory / "sparse").open("wb") as file:
        file.truncate(100_000)
    (directory / "link").symlink_to("12345")
    (directory / "a").unlink()
    assert await driver.diffs.size(container) == 1000 + 100_000 + 5


async def test_the_size_of_a_container_at_work(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker ps -s`: what vanishes while it is counted does not count."""
    await load_layer(driver, "base", None, {"a": "base"})
    container = await make_container(driver, "c", "base")
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
    assert await driver.diffs.size(container) == 4


# Thin images


async def test_a_thin_container(driver: Driver, repository: Repository) -> None:
    one = repository.publish("one", {"a": "one", "gone": "one"})
    two = repository.publish("two", {"b": "two"}, whiteouts=[b"gone"])
    await load_thin(driver, "thin", one, two)
    container = await make_container(driver, "c", "thin")
    directory = await driver.get(container, label="")
    assert contents(directory) == {".dockerenv": "", "a": "one", "b": "two"}
    status = dict(await driver.reports.status())
    assert status["Repositories in use"] == "test.example.org (1)"
    assert status["Mounted unions"] == "1"
    await driver.put(container)
    assert dict(await driver.reports.status())["Repositories in use"] == "none"


async def test_the_layer_that_holds_the_descriptor_shows_it(driver: Driver, repository: Repository) -> None:
    """Push and save need it, also where no repository can be reached."""
    await load_thin(driver, "thin", repository.url("not published"))
    assert os.listdir(await driver.get(LayerId("thin"), label="")) == ["thin.json"]
    await driver.put(LayerId("thin"))
    await load_layer(driver, "committed", "thin", {"thin.json": thin_json(repository.url("neither")).decode()})
    assert os.listdir(await driver.get(LayerId("committed"), label="")) == ["thin.json"]


async def test_the_layers_of_an_image_that_mixes_are_shown(driver: Driver, repository: Repository) -> None:
    await load_thin(driver, "thin", repository.publish("one", {"a": "one"}))
    await load_layer(driver, "local", "thin", {"b": "local"})
    directory = await driver.get(LayerId("local"), label="")
    assert contents(directory) == {"a": "one", "b": "local"}
    # Written through the view, as a build step does.
    (directory / "built").write_text("built")
    diff = await driver.diffs.diff(LayerId("local"), LayerId("thin"))
    assert isinstance(diff, TreeDiff)
    with diff.opened() as tree:
        assert sorted(os.listdir(tree)) == ["b", "built"]


async def test_a_layer_that_is_not_published_fails_the_get_and_leaves_nothing(
    driver: Driver, repository: Repository
) -> None:
    await load_thin(driver, "thin", repository.publish("one"), repository.url("two"))
    init = LayerId("c-init")
    await driver.create(init, LayerId("thin"), LayerKind.CONTAINER)
    with pytest.raises(LayerNotPublishedError, match=r"1 of 2 layers did not show within 0\.2 s"):
        await driver.get(init, label="")
    assert mounts_below(driver.home) == []
    assert dict(await driver.reports.status())["Repositories in use"] == "none"
    repository.publish("two", {"b": "two"})
    assert contents(await driver.get(init, label="")) == {"b": "two"}


async def test_an_unusable_descriptor_fails_the_container_and_can_be_removed(
    driver: Driver, repository: Repository
) -> None:
    await load_layer(driver, "thin", None, {"thin.json": newer_thin_json(repository.url("one"))})
    init = LayerId("c-init")
    await driver.create(init, LayerId("thin"), LayerKind.CONTAINER)
    with pytest.raises(LineageError, match=r"layer thin: thin\.json needs version 2\.0 of the form"):
        await driver.get(init, label="")
    # It can be pushed and saved all the same.
    assert os.listdir(await driver.get(LayerId("thin"), label="")) == ["thin.json"]
    await driver.put(LayerId("thin"))
    await driver.put(init)
    await driver.remove(init)
    await driver.remove(LayerId("thin"))
    assert not await driver.exists(LayerId("thin"))


_ORDINARY = '{"name": "my app"}'


async def _packed(driver: Driver, layer: str, parent: str | None) -> list[str]:
    diff = await driver.diffs.diff(LayerId(layer), LayerId(parent) if parent else None)
    assert isinstance(diff, TreeDiff)
    with diff.opened() as tree:
        return sorted(os.listdir(tree))


async def test_an_ordinary_thin_json_is_a_file_like_any_other(driver: Driver) -> None:
    await load_layer(driver, "base", None, {"a": "base", "thin.json": _ORDINARY})
    await load_layer(driver, "top", "base", {"b": "top"})
    container = await make_container(driver, "c", "top")
    shown = contents(await driver.get(container, label=""))
    assert shown == {".dockerenv": "", "a": "base", "b": "top", "thin.json": _ORDINARY}
    # Save and push read the layer that holds it, and with it all below.
    assert contents(await driver.get(LayerId("top"), label="")) == {"a": "base", "b": "top", "thin.json": _ORDINARY}
    assert await _packed(driver, "base", None) == ["a", "thin.json"]
    assert await _packed(driver, "top", None) == ["a", "b", "thin.json"]
    (await driver.get(container, label="") / "thin.json").write_text("{}")
    assert await _packed(driver, "c", "c-init") == ["thin.json"]


async def test_a_thin_image_from_which_the_descriptor_is_deleted_is_a_regular_one(
    driver: Driver, repository: Repository
) -> None:
    await load_layer(driver, "base", None, {"a": "base"})
    thin = thin_json(repository.url("not published")).decode()
    await load_layer(driver, "thin", "base", {"b": "beside", "thin.json": thin})
    await load_layer(driver, "deletes", "thin", {"c": "local", "thin.json": None})
    container = await make_container(driver, "c", "deletes")
    files = {"a": "base", "b": "beside", "c": "local"}
    assert contents(await driver.get(container, label="")) == {".dockerenv": "", **files}
    assert contents(await driver.get(LayerId("deletes"), label="")) == files
    # Its containers are committed, and its layers merged, as those of any regular image.
    (await driver.get(container, label="") / "new").touch()
    assert await _packed(driver, "c", "c-init") == ["new"]
    assert await _packed(driver, "deletes", None) == ["a", "b", "c"]


async def test_what_is_local_may_be_named_as_it_likes(driver: Driver) -> None:
    """CVMFS takes such a name for a deletion; a regular image has nothing to do with it."""
    await load_layer(driver, "base", None, {".WH.a": "base"})
    container = await make_container(driver, "c", "base")
    directory = await driver.get(container, label="")
    assert (directory / ".WH.a").read_text() == "base"
    (directory / ".Wh.b").touch()
    diff = await driver.diffs.diff(container, LayerId("c-init"))
    assert isinstance(diff, TreeDiff)
    sink = io.BytesIO()
    with diff.opened() as tree:
        pack(tree, sink)
    sink.seek(0)
    with tarfile.open(fileobj=sink) as tar:
        assert tar.getnames() == [".Wh.b"]


async def test_changes_of_a_thin_container(driver: Driver, repository: Repository) -> None:
    await load_thin(driver, "thin", repository.publish("one", {"a": "one", "gone": "one"}))
    container = await make_container(driver, "c", "thin")
    directory = await driver.get(container, label="")
    (directory / "a").write_text("changed")
    (directory / "gone").unlink()
    (directory / "new").write_text("new")
    found = await driver.diffs.changes(container, LayerId("c-init"))
    assert [f"{'CAD'[change.kind]} {change.path.decode()}" for change in found] == ["C /a", "D /gone", "A /new"]
    assert dict(await driver.reports.status())["Repositories in use"] == "test.example.org (1)"
    await driver.put(container)
    assert dict(await driver.reports.status())["Repositories in use"] == "none"


async def test_changes_are_not_waited_for_on_a_client_that_hangs(
    driver: Driver, cvmfs_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine keeps the container locked until it has its answer."""
    source = Repository(tmp_path / "source")
    await load_thin(driver, "thin", source.publish("one", {"a": "one"}))
    with served(source.root, cvmfs_root / "test.example.org") as server:
        container = await make_container(driver, "c", "thin")
        directory = await driver.get(container, label="")
        (directory / "a").write_text("changed")

        def hang_and_compare(upper: Path, view: Path | None, *, step: Callable[[], None]) -> list[Change]:
            stop(server.pid)
            return changes(upper, view, step=step)

        monkeypatch.setattr("services.node.diffs.changes", hang_and_compare)
        with pytest.raises(RepositoryError, match="does not answer within 4 s: the CVMFS client hangs"):
            await asyncio.wait_for(driver.diffs.changes(container, LayerId("c-init")), 120)
        assert mounts_below(driver.home) == [str(directory)]
        await driver.remove(container)
        assert mounts_below(driver.home) == []


async def test_metadata_tell_what_a_union_is_made_of(driver: Driver, repository: Repository) -> None:
    one, two = repository.publish("one"), repository.publish("two")
    await load_thin(driver, "thin", one, two)
    await load_layer(driver, "local", "thin", {"b": "local"})
    container = await make_container(driver, "c", "local")
    metadata = await driver.reports.metadata(container)
    layers = driver.home / "layers"
    assert metadata == {
        "MergedDir": str(layers / "c/merged"),
        "UpperDir": str(layers / "c/diff"),
        "WorkDir": str(layers / "c/work"),
        "LowerDir": f"{layers / 'c-init/diff'}:{layers / 'local/diff'}",
        "ThinLayers": f'["{two}", "{one}"]',
    }
    assert "ThinLayers" not in await driver.reports.metadata(LayerId("thin"))


async def test_a_union_on_a_dead_client_is_replaced_at_the_next_get(
    driver: Driver, cvmfs_root: Path, tmp_path: Path
) -> None:
    """`docker restart` keeps the union mounted from the old run to the new one."""
    source = Repository(tmp_path / "source")
    point = cvmfs_root / "test.example.org"
    await load_thin(driver, "thin", source.publish("one", {"a": "one"}))
    with served(source.root, point) as server:
        container = await make_container(driver, "c", "thin")
        directory = await driver.get(container, label="")
        (directory / "own").write_text("own")
        server.kill()
        server.wait()
        with pytest.raises(RepositoryError, match="its client process is gone"):
            await driver.get(container, label="")
    with served(source.root, point):
        for _ in range(2):
            assert await driver.get(container, label="") == directory
            assert contents(directory) == {".dockerenv": "", "a": "one", "own": "own"}
            assert len([mounted for mounted in mounts_below(driver.home) if mounted == str(directory)]) == 1
        # The holder from before has not given it back.
        for _ in range(3):
            assert contents(directory)["a"] == "one"
            await driver.put(container)
        assert mounts_below(driver.home) == []


async def test_a_union_on_a_client_that_hangs_is_no_answer(driver: Driver, cvmfs_root: Path, tmp_path: Path) -> None:
    source = Repository(tmp_path / "source")
    await load_thin(driver, "thin", source.publish("one", {"a": "one"}))
    with served(source.root, cvmfs_root / "test.example.org") as server:
        container = await make_container(driver, "c", "thin")
        directory = await driver.get(container, label="")
        stop(server.pid)
        with pytest.raises(RepositoryError, match="does not answer within 4 s: the CVMFS client hangs"):
            await driver.get(container, label="")
        server.send_signal(signal.SIGCONT)
        assert await driver.get(container, label="") == directory
        # The failed one does not count.
        for _ in range(2):
            assert mounts_below(driver.home)
            await driver.put(container)
        assert mounts_below(driver.home) == []


async def test_status_before_anything_happened(driver: Driver) -> None:
    *rows, (name, _) = await driver.reports.status()
    assert rows == [
        ("Home", str(driver.home)),
        ("Repositories", "test.example.org"),
        ("Repositories in use", "none"),
        ("Mounted unions", "0"),
        ("Layers waiting to be published", "0"),
        ("Local copies", "0 bytes"),
    ]
    # What is said of them depends on the machine (test_inode_numbers.py).
    assert name == "Hard links made in thin containers"


async def test_the_layers_directory_is_the_engines_only(driver: Driver) -> None:
    await load_layer(driver, "base", None, {"a": "base"})
    for name in ("", "layers", "layers/base", "copies", "spool", "views"):
        assert stat.S_IMODE((driver.home / name).stat().st_mode) & 0o007 == 0, name
