"""What is found in a repository that DUCC made, and what is wrong with it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.image_name import ImageName
from services.common.image_outputs import FlatOutput, ImageOutputs, PodmanOutput
from services.common.sidecar import LayerSidecar
from services.converter.adoption.inventory import take_inventory
from services.converter.adoption.model import FoundImage, Inventory, Verdict
from services.converter.errors import AdoptionError
from tests.support.ducc import DuccImage, DuccTree
from tests.support.tars import archive, member

_BASE = archive(member(b"bin/", typeflag=b"5", mode=0o755), member(b"bin/sh", b"shell"), member(b"gone", b"soon"))
_TOP = archive(member(b".wh.gone"), member(b"bin/.wh..wh..opq"), member(b"bin/tool", b"tool"))
_NAME = "registry.hub.docker.com/library/tool:v1"


Damage = Callable[[DuccTree, DuccImage], object]


@pytest.fixture
def tree(tmp_path: Path) -> DuccTree:
    return DuccTree(tmp_path / "ducc.example.org")


def _only(inventory: Inventory) -> FoundImage:
    (image,) = inventory.images
    return image


def test_an_image_of_duccs_is_to_be_made_anew_as_it_is_shown(tree: DuccTree) -> None:
    image = DuccImage.made(_NAME, [_BASE, _TOP])
    tree.convert(image)
    tree.convert(DuccImage.made("quay.io/ns/plain@sha256:" + "1" * 64, [_BASE]), flat=False, podman=False)
    inventory = take_inventory(tree.root, contents=True)
    plain, found = inventory.images
    assert found == FoundImage(
        name=ImageName(_NAME),
        verdict=Verdict.ANEW,
        platforms=(),
        outputs=ImageOutputs(flat=FlatOutput(), podman=PodmanOutput()),
        layers=tuple(image.digests),
        flats=(image.config_digest,),
        faults=(),
    )
    assert (plain.name, plain.outputs) == (f"quay.io/ns/plain@sha256:{'1' * 64}", ImageOutputs())
    base, top = (inventory.layers[digest].faults for digest in image.digests)
    unverified, marker = base[:2]
    assert unverified.startswith("it has no layer.json")
    assert marker == "containers see /.cvmfscatalog"
    assert base[2:] == ("all 4 entries belong to 1000:1000, whoever their owners are",)
    assert [fault.split(":")[0] for fault in top[2:4]] == ["files .wh.* (1)", "files .wh..wh..opq (1)"]
    (store,) = inventory.stores
    assert (store.path, store.images) == ("podmanStore", frozenset([image.config_digest]))
    assert [fault.split(":")[0] for fault in store.faults] == [
        "layers have no short name",
        "links to layers are relative",
    ]
    assert inventory.strays == []


def test_contents_are_looked_at_only_where_that_is_asked_for(tree: DuccTree) -> None:
    tree.convert(DuccImage.made(_NAME, [_TOP]))
    (layer,) = take_inventory(tree.root, contents=False).layers.values()
    assert len(layer.faults) == 2


def test_what_this_suite_has_published_is_kept(tree: DuccTree) -> None:
    image = DuccImage.made(_NAME, [_BASE, _TOP])
    tree.convert(image)
    sidecar = LayerSidecar(
        digest=image.digests[0],
        diff_id=image.digests[0],
        archive_size=1,
        uncompressed_size=1,
        tree_size=1,
        entries=3,
    )
    for digest in image.digests:
        (tree.home(digest) / "layer.json").write_bytes(sidecar.encode())
    record = {"version": 1, "name": _NAME, "outputs": {"flat": {"others_read": True}}}
    directory = tree.root / ".metadata" / _NAME
    (directory / "image.json").write_text(json.dumps(record))
    inventory = take_inventory(tree.root, contents=True)
    found = _only(inventory)
    assert found.verdict is Verdict.OURS
    assert found.outputs == ImageOutputs(flat=FlatOutput(others_read=True))
    right, other = (inventory.layers[digest] for digest in image.digests)
    assert right.is_right
    assert other.faults == (f"layer.json is that of layer {image.digests[0]}",)
    # The record of another image is none of this one.
    (directory / "image.json").write_text(json.dumps(record | {"name": "quay.io/ns/other:v1"}))
    assert _only(take_inventory(tree.root, contents=False)).verdict is Verdict.ANEW


def test_several_platforms(tree: DuccTree) -> None:
    amd, arm = DuccImage.made(_NAME, [_BASE]), DuccImage.made(_NAME, [_TOP], created="2025-01-01T00:00:00Z")
    tree.convert(arm, podman=False)
    tree.convert(amd, podman=False)
    for machine, image in (("arm64:v8", arm), ("amd64", amd)):
        for place in (tree.root / ".metadata/.multiarch" / machine, tree.root / ".multiarch" / machine):
            (place / _NAME).parent.mkdir(parents=True)
        shutil.copytree(tree.root / ".metadata" / _NAME, tree.root / ".metadata/.multiarch" / machine / _NAME)
        (tree.root / ".multiarch" / machine / _NAME).symlink_to(
            "../../../../" + str(tree.flat(image))[len(str(tree.root)) + 1 :]
        )
    (tree.root / ".multiarch/aarch64").symlink_to("arm64:v8")
    public = tree.root / _NAME
    public.unlink()
    public.symlink_to(f"../../.multiarch/$(CVMFS_ARCH:-amd64)/{_NAME}")
    found = _only(take_inventory(tree.root, contents=False))
    assert found.platforms == ("linux/amd64", "linux/arm64/v8")
    assert set(found.flats) == {amd.config_digest, arm.config_digest}
    assert found.faults == (f"its name leads to a flat image of another version, {arm.config_digest}",)


def _relink(tree: DuccTree, target: str) -> None:
    (tree.root / _NAME).unlink()
    (tree.root / _NAME).symlink_to(target)


def _document(tree: DuccTree, file: str) -> Path:
    return tree.root / ".metadata" / _NAME / file


def _pipe(tree: DuccTree) -> None:
    _document(tree, "manifest.json").unlink()
    os.mkfifo(_document(tree, "manifest.json"))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda tree, image: shutil.rmtree(tree.flat(image)), f"{_NAME} leads nowhere"),
        (lambda tree, _: _relink(tree, _NAME), f"{_NAME} leads nowhere"),
        (lambda tree, _: _relink(tree, "../../.layers"), f"{_NAME} leads to no flat image"),
        (lambda tree, _: _relink(tree, "/etc"), f"{_NAME} leads to no flat image"),
        (lambda tree, _: _document(tree, "manifest.json").write_bytes(b""), "manifest.json: it is no JSON document"),
        (
            lambda tree, _: _document(tree, "manifest.json").write_bytes(b"[" * 100_000),
            "manifest.json: it is no JSON document",
        ),
        (
            lambda tree, _: _document(tree, "manifest.json").write_bytes(b" " * (5 << 20)),
            "manifest.json: it has more than 4194304 bytes",
        ),
        (lambda tree, _: _document(tree, "manifest.json").write_bytes(b"[]"), "manifest.json: it is no manifest"),
        (
            lambda tree, _: _document(tree, "manifest.json").write_bytes(b'{"Config": {"Digest": "sha256:../.."}}'),
            "manifest.json: not a sha256",
        ),
        (
            lambda tree, _: _document(tree, "manifest.json").write_bytes(b'{"Layers": {"a": 1}}'),
            "manifest.json: its layers are no list",
        ),
        (lambda tree, _: _pipe(tree), "manifest.json: it is no file"),
        (lambda tree, _: _document(tree, "image.json").write_bytes(b"{"), "image.json: it is no JSON document"),
    ],
)
def test_what_is_wrong_with_an_image_is_told(
    tree: DuccTree,
    damage: Damage,
    fault: str,
) -> None:
    image = DuccImage.made(_NAME, [_BASE])
    tree.convert(image)
    damage(tree, image)
    found = _only(take_inventory(tree.root, contents=True))
    assert found.verdict is Verdict.ANEW
    assert found.faults[0].startswith(fault)


def test_layers_that_are_not_there_are_told(tree: DuccTree) -> None:
    image = DuccImage.made(_NAME, [_BASE, _TOP])
    tree.convert(image)
    shutil.rmtree(tree.home(image.digests[0]))
    shutil.rmtree(tree.home(image.digests[1]) / "layerfs")
    layers = take_inventory(tree.root, contents=True).layers
    assert layers[image.digests[0]].faults == ("it is not in the repository",)
    assert layers[image.digests[1]].faults == ("it has no directory layerfs",)


def test_a_store_whose_lists_cannot_be_read_is_told(tree: DuccTree) -> None:
    tree.convert(DuccImage.made(_NAME, [_BASE]))
    store = tree.root / "podmanStore"
    (store / "overlay-images/images.json").write_text('[{"id": "../x"}]')
    (store / "overlay-layers/layers.lock").unlink()
    shutil.rmtree(tree.root / ".layers")
    inventory = take_inventory(tree.root, contents=True)
    (found,) = inventory.stores
    assert [fault.split(":")[0] for fault in found.faults] == [
        "overlay-images/images.json",
        "there is no overlay-layers/layers.lock",
        "layers have no short name",
        "links to layers are relative",
        "links to layers lead nowhere (1)",
    ]
    assert _only(inventory).outputs.podman is None


def test_what_belongs_to_no_image_is_told(tree: DuccTree) -> None:
    image = DuccImage.made(_NAME, [_BASE])
    tree.convert(image)
    for directory in ("quay.io/NS/Tool:v1", "quay.io/ns/manifest:v1"):
        (tree.root / ".metadata" / directory).mkdir(parents=True)
        (tree.root / ".metadata" / directory / "manifest.json").touch()
    (tree.root / ".metadata/remove-schedule.json").write_text("[]")
    (tree.root / ".metadata/loop").symlink_to(".")
    old = DuccImage.made("quay.io/ns/old:v1", [_TOP])
    tree.convert(old, podman=False)
    shutil.rmtree(tree.root / ".metadata/quay.io/ns/old:v1")
    (tree.root / "quay.io/ns/nowhere:v1").symlink_to("nowhere:v1")
    (tree.root / "software.d").mkdir()
    inventory = take_inventory(tree.root, contents=False)
    assert [image.name for image in inventory.images] == ["quay.io/ns/manifest:v1", _NAME]
    assert inventory.strays == [
        ".metadata/quay.io/NS/Tool:v1: documents of an image whose name is none",
        "quay.io/ns/nowhere:v1: a name without documents, and leads nowhere",
        "quay.io/ns/old:v1: a name without documents",
        f".flat: 1 flat images that no image's name leads to, such as {old.config_digest}",
        f".layers: 1 layers that no image names, such as {old.digests[0]}",
    ]


def test_a_directory_without_images_is_none_to_take_over(tmp_path: Path) -> None:
    with pytest.raises(AdoptionError, match="name the root of a mounted repository"):
        take_inventory(tmp_path, contents=False)


def test_directories_without_end_are_refused(tree: DuccTree) -> None:
    (tree.root / ".metadata" / "/".join(["deeper"] * 120)).mkdir(parents=True)
    with pytest.raises(AdoptionError, match="too deep"):
        take_inventory(tree.root, contents=False)
