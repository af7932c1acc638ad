"""Publishing into a native repository whose images DUCC has made."""

import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.common.archive.model import LayerArchive
from services.common.image_outputs import FlatOutput, ImageOutputs, PodmanOutput
from services.common.layout import LayerLayout, layer_home, layer_tree, sidecar_path
from services.repository.images import ImageDocuments
from services.repository.native.reader.revision import Revision
from services.repository.podman.identity import layer_ids
from services.repository.public_names import flat_home
from tests.support.ducc import DuccImage, DuccTree, native_of_tree
from tests.support.images import change, image_of_layers
from tests.support.native import NATIVE_NAME, NativeSite, layer_entries, tar_archive
from tests.support.tars import archive, member

_BASE = archive(
    member(b"bin/", typeflag=b"5", mode=0o755), member(b"bin/sh", b"shell", mode=0o4755), member(b"gone", b"soon")
)
_TOP = archive(member(b".wh.gone"), member(b"bin/tool", b"tool", uid=7, gid=8))
_OTHER = archive(member(b"other", b"other"))
_BOTH = ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())


def _image(
    directory: Path, name: str, *layers: bytes, outputs: ImageOutputs = _BOTH
) -> tuple[ImageDocuments, Sequence[LayerArchive], DuccImage]:
    archives = [tar_archive(directory, layer) for layer in layers]
    documents = image_of_layers(name, ("amd64", archives), outputs=outputs)
    return documents, archives, DuccImage.of(documents, layers)


def _paths(revision: Revision) -> dict[bytes, bytes | None]:
    """Return what users of a repository rely on: names, and where they lead."""
    found = {}
    for entry in revision.walk(b""):
        if not entry.path.startswith(b"/podmanStore") and not entry.is_directory:
            found[entry.path] = entry.target if entry.is_symlink else None
    return found


async def test_an_image_takes_the_place_of_what_ducc_made(site: NativeSite, tmp_path: Path) -> None:
    site = replace(site, layout=LayerLayout.DUCC)
    tool, archives, ducc_tool = _image(tmp_path, "quay.io/ns/tool:v1", _BASE, _TOP)
    other, other_archives, ducc_other = _image(tmp_path, "quay.io/ns/other:v1", _BASE, _OTHER)
    tree = DuccTree(tmp_path / "ducc")
    tree.convert(ducc_tool)
    tree.convert(ducc_other)
    native_of_tree(site, tree.root)
    assert site.problems() == []
    with site.newest() as revision:
        before = _paths(revision)
    async with site.opened() as repository:
        assert [await repository.lookup(layer.digest) for layer in archives] == [None, None]
        await change(repository, layers=archives, put=[tool])
        assert all([await repository.lookup(layer.digest) for layer in archives])
        assert await repository.flats_of(tool.name) == {ducc_tool.config_digest}
        assert await repository.read_image(tool.name) == tool.files
        flats = await repository.list_flats()
        assert flats == {ducc_tool.config_digest, ducc_other.config_digest}
        assert await repository.ducc_flats(flats) == {ducc_other.config_digest}
    assert site.problems() == []
    with site.newest() as revision:
        after = _paths(revision)
        _check_store(revision, ducc_tool, ducc_other, archives)
        # What DUCC made of other images is as it was.
        kept = {
            path: to for path, to in before.items() if b"/other:" in path or ducc_other.config_digest.encode() in path
        }
        assert kept.items() <= after.items()
        assert before[b"/quay.io/ns/tool:v1"] == after[b"/quay.io/ns/tool:v1"]
        for layer in archives:
            assert revision.stat(b"/" + sidecar_path(layer.digest).encode()) is not None
        assert set(layer_entries(revision, archives[0].digest)) == {b"", b"bin", b"bin/sh", b"gone"}
        top = layer_entries(revision, archives[1].digest)
        assert (top[b"bin/tool"].uid, top[b"bin/tool"].gid) == (7, 8)
        flat = b"/" + flat_home(ducc_tool.config_digest).encode()
        shell = revision.stat(flat + b"/bin/sh")
        assert shell is not None
        assert (shell.uid, stat.S_IMODE(shell.mode)) == (0, 0o4755)
        assert revision.stat(flat + b"/gone") is None
        assert b".cvmfscatalog" not in [entry.name for entry in revision.list(flat)]
        assert revision.stat(b"/" + layer_home(archives[0].digest).encode() + b"/.metadata") is None
    async with site.opened() as repository:
        await change(repository, layers=other_archives[1:], put=[other])
    assert site.problems() == []
    with site.newest() as revision:
        images, layers = _lists(revision)
        assert all("big-data-digests" in row for row in images)
        # Nothing is left of DUCC's but a short name.
        names = {entry.name.decode() for entry in revision.list(b"/podmanStore/overlay")}
        assert names == {row["id"] for row in layers} | {"l"}
        assert len(list(revision.list(b"/podmanStore/overlay/l"))) <= len(layers) + 1


def _lists(revision: Revision) -> list[list[dict[str, Any]]]:
    found = []
    for file in ("overlay-images/images.json", "overlay-layers/layers.json"):
        entry = revision.stat(b"/podmanStore/" + file.encode())
        assert entry is not None
        found.append(json.loads(b"".join(revision.content(entry))))
    return found


def _check_store(revision: Revision, ours: DuccImage, theirs: DuccImage, layers: Sequence[LayerArchive]) -> None:
    """Look at a store that has an image of this suite's, and one of DUCC's on the same lowest layer."""
    images, rows = _lists(revision)
    assert {row["id"]: "digest" in row for row in images} == {ours.config_digest: True, theirs.config_digest: False}
    base, top = layer_ids(layer.diff_id for layer in layers)
    assert {row["id"]: row.get("parent") for row in rows} == {base: None, top: base, theirs.digests[1]: base}
    diff = revision.stat(f"/podmanStore/overlay/{base}/diff".encode())
    assert diff is not None
    assert diff.target == f"/cvmfs/{NATIVE_NAME}/{layer_tree(layers[0].digest)}".encode()
    # What is DUCC's finds the layer below by the name that DUCC has given it.
    lower = revision.stat(f"/podmanStore/overlay/{theirs.digests[1]}/lower".encode())
    assert lower is not None
    assert revision.stat(f"/podmanStore/overlay/{ours.digests[1]}".encode()) is None
