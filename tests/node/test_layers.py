"""Layers on disk: ids, records, chains, and what a kill at any point leaves behind."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.common.errors import InvalidValueError
from services.node.errors import LayerExistsError, LineageError, UnknownLayerError
from services.node.layers import LayerId, LayerKind, LayerStore, short_link
from tests.support.deep import deepen, removed_afterwards
from tests.support.fuse import served
from tests.support.mounts import disk, full_disk, mount


@pytest.fixture
def store(home: Path) -> LayerStore:
    return LayerStore(home)


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


@pytest.mark.parametrize(
    "value",
    [
        "4f" * 32,  # an image layer
        "4f" * 32 + "-init",
        "ofvtjmwdxa1n1ip2k0dj7kjc4",  # a key of BuildKit's
        "a.b_c-d",
        "x" * 192,
    ],
)
def test_ids_of_the_engine_are_accepted(value: str) -> None:
    assert LayerId(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        ".new-x",
        "-x",
        "_x",
        "a b",
        "a\n",
        "a\0b",
        "a:b",
        "a,b",
        "ä",
        "x" * 193,
    ],
)
def test_what_cannot_be_a_directory_name_is_no_id(value: str) -> None:
    with pytest.raises(InvalidValueError, match="not a layer id"):
        LayerId(value)


def test_a_layer_is_found_by_the_next_process(store: LayerStore) -> None:
    base = store.create(LayerId("base"), None, LayerKind.IMAGE)
    store.create(LayerId("top"), base.id, LayerKind.CONTAINER)
    again = LayerStore(store.home)
    assert again.find(LayerId("top")) == store.find(LayerId("top"))
    assert again.find(LayerId("top")).kind is LayerKind.CONTAINER
    assert again.find(LayerId("base")).parent is None
    assert {layer.id for layer in again.all()} == {"base", "top"}
    assert again.exists(LayerId("top"))
    assert not again.exists(LayerId("other"))


def test_a_new_layer_is_empty_and_has_the_attributes_that_overlay2_gives_it(store: LayerStore) -> None:
    previous = os.umask(0o077)
    try:
        layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
    finally:
        os.umask(previous)
    assert _names(layer.diff) == []
    assert stat.S_IMODE(layer.diff.stat().st_mode) == 0o755  # what the container has as its /
    assert stat.S_IMODE(layer.directory.stat().st_mode) == 0o710
    assert stat.S_IMODE(store.home.stat().st_mode) == 0o710


def test_a_second_layer_of_an_id_is_refused_and_the_first_kept(store: LayerStore) -> None:
    layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
    (layer.diff / "file").write_text("content")
    with pytest.raises(LayerExistsError, match="layer a exists already"):
        store.create(LayerId("a"), None, LayerKind.CONTAINER)
    assert (store.find(LayerId("a")).diff / "file").read_text() == "content"
    assert _names(store.home / "layers") == ["a"]


def test_a_layer_on_nothing_known_is_refused(store: LayerStore) -> None:
    with pytest.raises(UnknownLayerError, match="no layer base"):
        store.create(LayerId("a"), LayerId("base"), LayerKind.IMAGE)
    assert _names(store.home / "layers") == []


def test_the_chain_is_top_first(store: LayerStore) -> None:
    parent = None
    for name in ("base", "middle", "top"):
        parent = store.create(LayerId(name), parent, LayerKind.IMAGE).id
    assert [layer.id for layer in store.chain(LayerId("top"))] == ["top", "middle", "base"]


def test_a_missing_ancestor_is_named(store: LayerStore) -> None:
    store.create(LayerId("base"), None, LayerKind.IMAGE)
    store.create(LayerId("top"), LayerId("base"), LayerKind.IMAGE)
    store.remove(LayerId("base"))
    with pytest.raises(LineageError, match="layer base, an ancestor of top, is missing"):
        store.chain(LayerId("top"))
    with pytest.raises(UnknownLayerError, match="no layer base"):
        store.chain(LayerId("base"))


def test_records_that_form_a_loop_are_an_error(store: LayerStore) -> None:
    store.create(LayerId("a"), None, LayerKind.IMAGE)
    store.create(LayerId("b"), LayerId("a"), LayerKind.IMAGE)
    record = store.home / "layers/a/record.json"
    record.write_text(record.read_text().replace("null", '"b"'))
    with pytest.raises(LineageError, match="its records form a loop"):
        LayerStore(store.home).chain(LayerId("b"))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"id": "a", "parent": null}', '{"id": "a", "parent": "../x", "kind": "image"}',
     '{"id": "a", "parent": null, "kind": "volume"}', '{"id": "a", "parent": 7, "kind": "image"}'],
)  # fmt: skip
def test_a_damaged_record_is_named(store: LayerStore, content: str) -> None:
    store.create(LayerId("a"), None, LayerKind.IMAGE)
    (store.home / "layers/a/record.json").write_text(content)
    with pytest.raises(LineageError, match=r"layers/a/record\.json is damaged"):
        LayerStore(store.home).find(LayerId("a"))


@pytest.mark.parametrize("content", [None, "", "{", '{"id": "a", "parent": null}'])
def test_a_layer_goes_whatever_its_record_says(store: LayerStore, content: str | None) -> None:
    """A power cut can leave any of these, and no front end ever gets rid of what it cannot remove."""
    layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
    (layer.diff / "file").touch()
    record = layer.directory / "record.json"
    record.unlink()
    if content is not None:
        record.write_text(content)
    again = LayerStore(store.home)
    assert again.exists(LayerId("a"))
    with pytest.raises(LineageError, match=r"layers/a/record\.json is damaged: .*: remove the image or container of"):
        again.find(LayerId("a"))
    with pytest.raises(LayerExistsError):
        again.create(LayerId("a"), None, LayerKind.IMAGE)
    # What it stands on cannot be told; its files are there.
    assert [found.diff for found in again.all()] == [layer.diff]
    again.remove(LayerId("a"))
    assert not again.exists(LayerId("a"))
    assert {name: _names(store.home / name) for name in ("layers", "l", "trash")} == {
        "layers": [],
        "l": [],
        "trash": [],
    }
    assert again.create(LayerId("a"), None, LayerKind.CONTAINER).kind is LayerKind.CONTAINER


@pytest.mark.usefixtures("mounting")
def test_layers_outlive_a_power_cut(tmp_path: Path) -> None:
    with disk(tmp_path / "disk") as cut_power:
        store = LayerStore(tmp_path / "disk/home")
        parent = None
        for number in range(20):
            kind = LayerKind.CONTAINER if number % 2 else LayerKind.IMAGE
            parent = store.create(LayerId(f"layer-{number}"), parent, kind).id
        cut_power(tmp_path / "copy")
        found = LayerStore(tmp_path / "copy/home")
        assert [(layer.id, layer.kind) for layer in found.chain(LayerId("layer-19"))] == [
            (layer.id, layer.kind) for layer in store.chain(LayerId("layer-19"))
        ]
        for layer in found.chain(LayerId("layer-19")):
            assert _names(layer.diff) == _names(layer.work) == []
            found.remove(layer.id)
        assert _names(found.home / "layers") == []


def test_a_layer_that_cannot_be_brought_to_the_disk_is_not_made(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            store.create(LayerId("a"), None, LayerKind.IMAGE)
    assert not store.exists(LayerId("a"))
    assert {name: _names(store.home / name) for name in ("layers", "l", "trash")} == {
        "layers": [],
        "l": [],
        "trash": [],
    }
    store.create(LayerId("a"), None, LayerKind.IMAGE)


def test_removal_leaves_nothing_and_can_be_repeated(store: LayerStore) -> None:
    layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
    (layer.diff / "file").write_text("content")
    for _ in range(2):
        store.remove(layer.id)
        assert not store.exists(layer.id)
        assert {name: _names(store.home / name) for name in ("layers", "l", "trash")} == {
            "layers": [],
            "l": [],
            "trash": [],
        }
    with pytest.raises(UnknownLayerError):
        store.find(layer.id)
    assert store.create(layer.id, None, LayerKind.IMAGE).parent is None


@pytest.mark.usefixtures("mounting")
def test_a_full_disk_refuses_layers_whole_and_removes_them(home: Path) -> None:
    """Removing layers is what makes room on it."""
    with full_disk(home) as fill:
        store = LayerStore(home)
        layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
        (layer.diff / "file").touch()
        fill(1)
        with pytest.raises(OSError, match="No space left on device"):
            store.create(LayerId("b"), None, LayerKind.IMAGE)
        assert _names(home / "layers") == ["a"]
        fill(0)
        with pytest.raises(OSError, match="No space left on device"):
            (home / "more").touch()
        store.remove(layer.id)
        assert _names(home / "layers") == _names(home / "trash") == []


def test_what_a_kill_left_half_made_or_half_deleted_is_removed_at_the_next_start(store: LayerStore) -> None:
    store.create(LayerId("whole"), None, LayerKind.IMAGE)
    half_made = store.home / "layers/.new-abc"
    (half_made / "diff").mkdir(parents=True)
    half_deleted = store.home / "trash/tmpabc/layer/diff"
    half_deleted.mkdir(parents=True)
    (half_deleted / "file").write_text("content")
    again = LayerStore(store.home)
    assert _names(store.home / "layers") == ["whole"]
    assert _names(store.home / "trash") == []
    assert [layer.id for layer in again.all()] == ["whole"]


def test_a_start_goes_on_where_something_of_that_cannot_be_deleted(store: LayerStore) -> None:
    layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
    kept = []
    for place in ("layers/a/incoming", "layers/.new-abc", "trash/b.0123"):
        directory = store.home / place
        directory.mkdir()
        (directory / "immutable").touch()
        kept.append(directory / "immutable")
    (store.home / "trash/no directory").touch()
    for path in kept:
        subprocess.run(["chattr", "+i", path], check=True)
    try:
        with capture_logs() as logs:
            again = LayerStore(store.home)
    finally:
        subprocess.run(["find", store.home, "-name", "immutable", "-exec", "chattr", "-i", "{}", "+"], check=True)
    assert {event["event"] for event in logs} == {"leftover_kept"}
    reasons = [event["reason"] for event in logs]
    assert sum("immutable' cannot be deleted: Operation not permitted" in reason for reason in reasons) == 3
    assert sum("Not a directory" in reason for reason in reasons) == len(reasons) - 3 == 1
    # Out of the way, so that the layer can be filled.
    assert sorted(os.listdir(layer.directory)) == ["diff", "record.json", "work"]
    again.create(LayerId("c"), layer.id, LayerKind.CONTAINER)
    (store.home / "trash/no directory").unlink()
    LayerStore(store.home)
    assert _names(store.home / "trash") == []


@pytest.mark.usefixtures("mounting")
def test_what_is_mounted_in_a_layer_goes_with_it_and_stays_whole(store: LayerStore, tmp_path: Path) -> None:
    layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").touch()
    (layer.diff / "point").mkdir()
    mount("--bind", tmp_path / "elsewhere", layer.diff / "point")
    store.remove(layer.id)
    assert _names(store.home / "layers") == _names(store.home / "trash") == []
    assert _names(tmp_path / "elsewhere") == ["precious"]


def test_a_tree_deeper_than_any_path_goes_with_its_layer_and_at_the_next_start(store: LayerStore) -> None:
    with removed_afterwards(store.home):
        layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
        deepen(layer.diff, 5_000)
        store.remove(layer.id)
        assert _names(store.home / "trash") == []
        # As after a kill on the way.
        (store.home / "trash/a.0123/diff").mkdir(parents=True)
        deepen(store.home / "trash/a.0123/diff", 5_000)
        LayerStore(store.home)
        assert _names(store.home / "trash") == []


def test_a_kill_between_a_layers_appearance_and_its_link_is_made_good(store: LayerStore) -> None:
    layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
    (store.home / layer.link).unlink()
    found = LayerStore(store.home).find(LayerId("a"))
    assert (store.home / found.link).resolve() == found.diff


def test_a_start_keeps_the_links_of_layers_only(store: LayerStore) -> None:
    """Others are there for a mount that is being made; a layer's may be that of one that never appeared."""
    layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
    (store.home / short_link("never appeared")).symlink_to("../layers/never appeared/diff")
    (store.home / short_link("in a repository")).symlink_to("/cvmfs/test.example.org/layer")
    for name in ("copies/abc/tree", "masks/abc"):
        (store.home / name).mkdir(parents=True)
        store.ensure_link(short_link(name), store.home / name)
    LayerStore(store.home)
    assert _names(store.home / "l") == [layer.link.removeprefix("l/")]


def test_links_that_go_while_others_are_forgotten_are_passed_over(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        store.create(LayerId(name), None, LayerKind.IMAGE)
    read = Path.readlink

    def remove_and_read(link: Path) -> Path:
        for name in ("a", "b"):
            store.remove(LayerId(name))
        return read(link)

    monkeypatch.setattr(Path, "readlink", remove_and_read)
    store.forget_links()
    assert _names(store.home / "l") == []


def test_a_layer_that_goes_while_all_are_listed_is_left_out(store: LayerStore) -> None:
    for name in ("a", "b"):
        store.create(LayerId(name), None, LayerKind.IMAGE)
    listed = store.all()
    first = next(listed)
    (other,) = {"a", "b"} - {first.id}
    store.remove(LayerId(other))
    assert list(listed) == []


@pytest.mark.usefixtures("mounting")
def test_a_start_looks_along_no_link_into_a_repository(store: LayerStore, tmp_path: Path) -> None:
    (tmp_path / "source/layer").mkdir(parents=True)
    repository = store.home / "repositories/test.example.org"
    with served(tmp_path / "source", repository) as server:
        store.ensure_link(short_link("in a repository"), repository / "layer")
        # Its client is dead: a look gives an error. It may as well hang, and a look would never end.
        server.kill()
        server.wait()
        LayerStore(store.home)
    assert _names(store.home / "l") == []


def test_links_still_lead_to_the_layers_where_the_home_has_another_path(store: LayerStore, tmp_path: Path) -> None:
    # A managed plugin sees the home under another path than the engine.
    layer = store.create(LayerId("a"), None, LayerKind.IMAGE)
    (layer.diff / "file").write_text("content")
    store.home.rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / layer.link / "file").read_text() == "content"


def test_a_link_that_is_taken_refuses_the_new_layer_and_keeps_the_old_one(store: LayerStore) -> None:
    # As if the hashes of two ids collided.
    old = store.create(LayerId("old"), None, LayerKind.IMAGE)
    link = store.home / short_link("new")
    link.symlink_to((store.home / old.link).readlink())
    with pytest.raises(LineageError, match="points to"):
        store.create(LayerId("new"), None, LayerKind.IMAGE)
    assert [layer.id for layer in store.all()] == ["old"]
    assert not store.exists(LayerId("new"))
    store.remove(LayerId("new"))
    assert link.resolve() == old.diff


def test_short_links_differ_and_are_short() -> None:
    links = {short_link(f"layer-{number}") for number in range(10_000)}
    assert len(links) == 10_000
    # 500 layers of 13 bytes would be more than the page of mount options; 300 fit.
    assert {len(link) for link in links} == {12}
