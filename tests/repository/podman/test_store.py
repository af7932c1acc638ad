"""What a store of podman's says of its images. That podman takes it so is tested in tests/e2e/test_podman.py."""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.layout import layer_tree, tar_split_path
from services.repository.errors import ImageAdditionError
from services.repository.image_platforms import PlatformImage, platform_images
from services.repository.podman.identity import big_data_file, layer_ids, link_name, mask_id
from services.repository.podman.layer_facts import Deletions, LayerFacts
from services.repository.podman.store import IMAGES, LAYERS, LISTS, PodmanStore, StoreChanges
from tests.support.images import image_of_layers
from tests.support.publisher import make_layer

_NAME = ImageName("quay.io/ns/tool:v1")
_MOUNT = PurePosixPath("/cvmfs/test.cern.ch")


@pytest.fixture
def layers(tmp_path: Path) -> list[LayerArchive]:
    """Three layers."""
    return [make_layer(tmp_path, name) for name in ("base", "middle", "top")]


def _image(layers: Sequence[LayerArchive], name: ImageName = _NAME, **config: object) -> PlatformImage:
    (image,) = platform_images(image_of_layers(str(name), ("amd64", layers), config=config))
    return image


def _facts(layers: Sequence[LayerArchive], *masked: Digest) -> dict[Digest, LayerFacts]:
    deletions = Deletions(whiteouts=(b"gone",), opaque=(b"hidden",))
    return {
        layer.digest: LayerFacts(
            size=layer.uncompressed_size,
            masked=deletions if layer.digest in masked else Deletions(),
            tar_split=layer.digest in masked,
        )
        for layer in layers
    }


def _reopened(changes: StoreChanges | None = None, lower: dict[Digest, str] | None = None) -> PodmanStore:
    files = changes.files if changes else {}
    return PodmanStore.read(
        files.get(IMAGES, b"[]"),
        files.get(LAYERS, b"[]"),
        mount=_MOUNT,
        where="podmanStore",
        lower=lambda layer: (lower or {})[layer],
    )


def _rows(changes: StoreChanges, file: str) -> list[dict[str, Any]]:
    return list(json.loads(changes.files[file]))


def _ids(layers: Sequence[LayerArchive]) -> list[Digest]:
    return list(layer_ids(layer.diff_id for layer in layers))


def test_layers_have_the_identifiers_that_podman_computes() -> None:
    first, second = Digest("1" * 64), Digest("2" * 64)
    base, top = layer_ids([first, second])
    assert base == first
    assert top == hashlib.sha256(f"{first}+{second}".encode()).hexdigest()


def test_short_names_are_such_as_podman_reads_and_no_two_are_alike() -> None:
    names = {link_name(Digest(f"{number:064x}")) for number in range(1000)}
    assert len(names) == 1000
    assert all((len(name) == 26 and name.isalnum() and name.isupper()) or name.isdigit() for name in names)


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("manifest", "manifest"),
        ("sha256:00", "=" + base64.b64encode(b"sha256:00").decode()),
        ("manifest-sha256:00", "=" + base64.b64encode(b"manifest-sha256:00").decode()),
    ],
)
def test_documents_are_in_the_files_that_podman_looks_for(key: str, file: str) -> None:
    assert big_data_file(key) == file


def test_an_image_is_there_with_its_layers(layers: list[LayerArchive]) -> None:
    store, image = _reopened(), _image(layers)
    store.put(_NAME, image, _facts(layers))
    changes, (base, middle, top) = store.changes(), _ids(layers)
    (row,) = _rows(changes, IMAGES)
    assert (row["id"], row["names"], row["layer"]) == (image.config_digest, [_NAME], top)
    assert row["digest"] == image.manifest_digest.oci
    assert row["created"] == "2024-05-06T07:08:09Z"
    for key, size in row["big-data-sizes"].items():
        content = changes.files[f"overlay-images/{row['id']}/{big_data_file(key)}"]
        assert (len(content), row["big-data-digests"][key]) == (size, f"sha256:{hashlib.sha256(content).hexdigest()}")
    found = {each["id"]: each for each in _rows(changes, LAYERS)}
    assert [found[each].get("parent") for each in (base, middle, top)] == [None, base, middle]
    assert [found[each]["diff-size"] for each in (base, middle, top)] == [each.uncompressed_size for each in layers]
    assert changes.links[f"overlay/{top}/diff"] == str(_MOUNT / layer_tree(layers[2].digest))
    assert changes.links[f"overlay/l/{link_name(top)}"] == f"../{top}/diff"
    assert changes.files[f"overlay/{top}/lower"] == f"l/{link_name(middle)}:l/{link_name(base)}".encode()
    assert f"overlay/{base}/lower" not in changes.files
    assert (changes.masks, changes.removed) == ({}, [])


def test_locks_say_that_a_list_has_changed(layers: list[LayerArchive]) -> None:
    store = _reopened()
    store.put(_NAME, _image(layers), _facts(layers))
    first = store.changes().files
    store.put(ImageName("quay.io/ns/tool:v2"), _image(layers), _facts(layers))
    second = store.changes().files
    assert first[LISTS[IMAGES]] != second[LISTS[IMAGES]]
    assert first[LISTS[LAYERS]] == second[LISTS[LAYERS]]
    assert {len(files[lock]) for files in (first, second) for lock in LISTS.values()} == {64}


def test_deletions_that_not_all_see_are_in_masks_below_their_layers(layers: list[LayerArchive]) -> None:
    store = _reopened()
    store.put(_NAME, _image(layers), _facts(layers, layers[1].digest))
    changes, (base, middle, top) = store.changes(), _ids(layers)
    mask = mask_id(middle)
    below = f"l/{link_name(mask)}:l/{link_name(base)}"
    assert changes.files[f"overlay/{middle}/lower"] == below.encode()
    assert changes.files[f"overlay/{top}/lower"] == f"l/{link_name(middle)}:{below}".encode()
    assert changes.links[f"overlay/l/{link_name(mask)}"] == f"../{mask}/diff"
    assert changes.masks == {f"overlay/{mask}/diff": Deletions(whiteouts=(b"gone",), opaque=(b"hidden",))}
    assert mask not in {each["id"] for each in _rows(changes, LAYERS)}
    # Only this layer has what podman makes an archive again with.
    split = {link: target for link, target in changes.links.items() if link.startswith("overlay-layers/")}
    assert split == {f"overlay-layers/{middle}.tar-split.gz": str(_MOUNT / tar_split_path(layers[1].digest))}


def test_layers_that_are_there_are_shared_and_keep_their_masks(layers: list[LayerArchive]) -> None:
    store, (base, middle, top) = _reopened(), _ids(layers)
    store.put(_NAME, _image(layers[:2]), _facts(layers, layers[1].digest))
    first = store.changes()
    lower = {middle: first.files[f"overlay/{middle}/lower"].decode()}
    again = _reopened(first, lower)
    again.put(ImageName("quay.io/ns/other:v1"), _image(layers), _facts(layers, layers[1].digest))
    changes = again.changes()
    assert {path.split("/")[1] for path in changes.files if path.startswith("overlay/")} == {top}
    assert changes.files[f"overlay/{top}/lower"].decode() == f"l/{link_name(middle)}:{lower[middle]}"
    assert {each["id"] for each in _rows(changes, LAYERS)} == {base, middle, top}


def test_a_name_is_one_images_and_the_other_stays_without_it(layers: list[LayerArchive]) -> None:
    store = _reopened()
    old, new = _image(layers[:1]), _image(layers[:2])
    store.put(_NAME, old, _facts(layers))
    store.put(ImageName("quay.io/ns/tool:latest"), old, _facts(layers))
    store.put(_NAME, new, _facts(layers))
    names = {row["id"]: row["names"] for row in _rows(store.changes(), IMAGES)}
    assert names == {old.config_digest: ["quay.io/ns/tool:latest"], new.config_digest: [_NAME]}
    store.drop_name(_NAME)
    assert {row["id"]: row["names"] for row in _rows(store.changes(), IMAGES)}[new.config_digest] == []


def test_an_image_of_docker_hub_has_the_name_that_podman_makes_of_a_short_one(layers: list[LayerArchive]) -> None:
    store, name = _reopened(), ImageName("registry.hub.docker.com/library/fedora:40")
    store.put(name, _image(layers, name), _facts(layers))
    (row,) = _rows(store.changes(), IMAGES)
    assert row["names"] == ["docker.io/library/fedora:40", "registry.hub.docker.com/library/fedora:40"]


def test_an_image_goes_with_the_layers_that_no_other_one_has(layers: list[LayerArchive]) -> None:
    store, (base, middle, top) = _reopened(), _ids(layers)
    kept, gone = _image(layers[:1], ImageName("quay.io/ns/kept:v1")), _image(layers)
    store.put(ImageName("quay.io/ns/kept:v1"), kept, _facts(layers))
    store.put(_NAME, gone, _facts(layers))
    again = _reopened(store.changes())
    again.remove(gone.config_digest)
    changes = again.changes()
    assert [row["id"] for row in _rows(changes, IMAGES)] == [kept.config_digest]
    assert [row["id"] for row in _rows(changes, LAYERS)] == [base]
    for layer in (middle, top):
        assert {f"overlay/{layer}", f"overlay/l/{link_name(layer)}"} <= {*changes.removed}
    assert f"overlay-images/{gone.config_digest}" in changes.removed
    assert f"overlay/{base}" not in changes.removed
    assert f"overlay/{middle}" in again.entries()


def test_nothing_is_written_where_nothing_changes(layers: list[LayerArchive]) -> None:
    store = _reopened()
    store.put(_NAME, _image(layers), _facts(layers))
    again = _reopened(store.changes())
    again.put(_NAME, _image(layers), _facts(layers))
    again.remove(Digest("0" * 64))
    assert not again.changes()


@pytest.mark.parametrize("created", ["yesterday", "2024-05-06 07:08:09", '"', ""])
def test_a_time_that_podman_could_not_read_is_left_out(layers: list[LayerArchive], created: str) -> None:
    store, documents = _reopened(), image_of_layers(str(_NAME), ("amd64", layers))
    (image,) = platform_images(documents)
    store.put(_NAME, dataclasses.replace(image, created=created), _facts(layers))
    assert not any("created" in row for file in (IMAGES, LAYERS) for row in _rows(store.changes(), file))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'[{"id": "../../etc"}]', b'[{"id": 5}]', b'[{"unknown": true}]', b"[null]"]
)
@pytest.mark.parametrize("file", [IMAGES, LAYERS])
def test_a_list_that_others_have_written_is_refused(file: str, content: bytes) -> None:
    lists = {IMAGES: b"[]", LAYERS: b"[]"} | {file: content}
    with pytest.raises(ImageAdditionError, match=f"podmanStore/{file} is not as this suite writes it"):
        PodmanStore.read(lists[IMAGES], lists[LAYERS], mount=_MOUNT, where="podmanStore", lower=str)


@pytest.mark.parametrize(
    ("whiteouts", "opaque"),
    [((b"a", b"a/b"), ()), ((b"a/b", b"a"), ()), ((b"a", b"a"), ()), ((b"a",), (b"a",)), ((b"a",), (b"a/b/c",))],
)
def test_deletions_that_no_directory_can_have_are_refused(
    whiteouts: tuple[bytes, ...], opaque: tuple[bytes, ...]
) -> None:
    with pytest.raises(InvalidValueError, match="deletes a path and something at or below it"):
        Deletions(whiteouts=whiteouts, opaque=opaque).check()
    Deletions(whiteouts=(b"a", b"ab", b"b/c"), opaque=(b"b", b"b/d")).check()
