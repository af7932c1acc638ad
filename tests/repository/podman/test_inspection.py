"""Every damage to a store is found, and said where it is."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import PurePosixPath
from typing import Final

import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import layer_tree, tar_split_path
from services.common.sidecar import LayerSidecar
from services.repository.errors import ImageAdditionError
from services.repository.image_platforms import PlatformImage, PlatformLayer
from services.repository.podman.identity import big_data_file
from services.repository.podman.inspection import StoreInspection
from services.repository.podman.layer_facts import LayerFacts
from services.repository.podman.store import PodmanStore
from tests.support.store_damage import Damage, store_damages

_NAME: Final = ImageName("quay.io/ns/tool:v1")
_REPOSITORY: Final = "images.example.org"
_PLACE: Final = "podmanStores/atlas"


def _sha256(text: str) -> Digest:
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def _sidecar(layer: PlatformLayer) -> LayerSidecar:
    hides = ("hidden",) if layer.digest == _sha256("top") else ()
    return LayerSidecar(
        digest=layer.digest,
        diff_id=layer.diff_id,
        archive_size=layer.size,
        uncompressed_size=2048,
        tree_size=1,
        entries=1,
        opaque=hides,
        tar_split=True,
    )


def _layer(name: str) -> PlatformLayer:
    return PlatformLayer(digest=_sha256(name), diff_id=_sha256(f"{name}.tar"), size=100, media_type="layer+gzip")


_IMAGE: Final = PlatformImage(
    platform="linux/amd64",
    machine="amd64",
    directory=_NAME.path,
    config=b"{}",
    config_digest=_sha256("{}"),
    manifest=b"manifest",
    manifest_digest=_sha256("manifest"),
    index=None,
    created=None,
    layers=(_layer("base"), _layer("top")),
)


@dataclass(frozen=True)
class Tree:
    """A store in memory; what has no content is a link, and what only is there a deletion."""

    files: Mapping[str, bytes]
    links: Mapping[str, str]
    deletions: frozenset[str]
    sidecars: Mapping[Digest, bytes] = field(
        default_factory=lambda: {layer.digest: _sidecar(layer).encode() for layer in _IMAGE.layers}
    )

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def target(self, path: str) -> str | None:
        return self.links.get(path)

    def exists(self, path: str) -> bool:
        beside = map(tar_split_path, self.sidecars)
        there = chain(self.files, self.links, self.deletions, beside)
        return any(each == path or each.startswith(f"{path}/") for each in there)

    def deletes(self, path: str) -> bool:
        return path in self.deletions

    def sidecar(self, digest: Digest) -> bytes | None:
        return self.sidecars.get(digest)

    def damaged(self, damage: Damage) -> "Tree":
        """Return what there is after a damage."""
        gone = tuple(f"{_PLACE}/{file}" for file in damage.files)

        def stays(path: str) -> bool:
            return not any(path == each or path.startswith(f"{each}/") for each in gone)

        files = {path: content for path, content in self.files.items() if stays(path)}
        links = {path: target for path, target in self.links.items() if stays(path)}
        for path, content in zip(gone, damage.files.values(), strict=True):
            if damage.link is not None:
                links[path] = damage.link
            elif content is not None:
                files[path] = content
        return replace(self, files=files, links=links, deletions=frozenset(filter(stays, self.deletions)))


def _tree() -> Tree:
    """Return a sound store with one image."""
    store = PodmanStore(images=(), layers=(), mount=PurePosixPath("/cvmfs", _REPOSITORY), lower=lambda _layer: "")
    store.put(_NAME, _IMAGE, {layer.digest: LayerFacts.of(_sidecar(layer)) for layer in _IMAGE.layers})
    changes = store.changes()
    return Tree(
        files={f"{_PLACE}/{file}": content for file, content in changes.files.items()},
        links={f"{_PLACE}/{link}": target for link, target in changes.links.items()},
        deletions=frozenset(
            f"{_PLACE}/{mask}/{path.decode()}"
            for mask, deletions in changes.masks.items()
            for path in (*deletions.whiteouts, *deletions.opaque)
        ),
    )


def _problems(tree: Tree) -> list[str]:
    inspection = StoreInspection(tree, _PLACE, _REPOSITORY)
    return [f"{problem.path}: {problem.what}" for kind in inspection.problems() for problem in kind]


def test_a_store_as_it_is_written_is_sound() -> None:
    tree = _tree()
    assert _problems(tree) == []
    inspection = StoreInspection(tree, _PLACE, _REPOSITORY)
    assert inspection.shows(_NAME, _IMAGE)
    assert not inspection.shows(ImageName("quay.io/ns/other:v1"), _IMAGE)


def test_every_damage_is_told_where_it_is() -> None:
    tree = _tree()
    damages = store_damages(_IMAGE, lambda file: tree.files[f"{_PLACE}/{file}"])
    for damage in damages:
        damaged = tree.damaged(damage)
        problems = _problems(damaged)
        assert any(problem.startswith(f"{_PLACE}/{damage.what}") for problem in problems), (damage, problems)
        assert not StoreInspection(damaged, _PLACE, _REPOSITORY).shows(_NAME, _IMAGE), damage


def test_a_layer_that_has_gone_or_is_another_is_told() -> None:
    tree = _tree()
    base = _IMAGE.layers[0]
    for sidecars in ({}, {base.digest: b"{}"}):
        damaged = replace(tree, sidecars={**tree.sidecars, base.digest: b"", **sidecars})
        assert any("leads to a layer that is not in the repository" in each for each in _problems(damaged))
    other = _sidecar(replace(base, diff_id=_sha256("other"))).encode()
    (problem,) = _problems(replace(tree, sidecars={**tree.sidecars, base.digest: other}))
    assert "has another digest or size there than .layers/" in problem
    assert layer_tree(base.digest).rpartition("/")[0] in problem


def test_one_name_of_several_images_is_told() -> None:
    store = PodmanStore(images=(), layers=(), mount=PurePosixPath("/cvmfs", _REPOSITORY), lower=lambda _layer: "")
    facts = {layer.digest: LayerFacts.of(_sidecar(layer)) for layer in _IMAGE.layers}
    other = replace(_IMAGE, config=b"[]", config_digest=_sha256("[]"))
    store.put(_NAME, _IMAGE, facts)
    store.put(ImageName("quay.io/ns/other:v1"), other, facts)
    files = {f"{_PLACE}/{file}": content for file, content in store.changes().files.items()}
    list_ = f"{_PLACE}/overlay-images/images.json"
    renamed = files[list_].replace(b"ns/other", b"ns/tool")
    tree = replace(_tree(), files=files | {list_: renamed})
    assert f"{list_}: several images are called {_NAME}" in _problems(tree)


def test_a_list_that_is_none_cannot_be_looked_at() -> None:
    tree = _tree()
    for file in ("overlay-images/images.json", "overlay-layers/layers.json"):
        damaged = tree.damaged(Damage(files={file: b"{"}, what=""))
        with pytest.raises(ImageAdditionError, match=f"{_PLACE}/{file} is not as this suite writes it"):
            StoreInspection(damaged, _PLACE, _REPOSITORY)


def test_documents_have_the_names_that_podman_looks_for() -> None:
    file = f"{_PLACE}/overlay-images/{_IMAGE.config_digest}/{big_data_file(_IMAGE.config_digest.oci)}"
    assert _tree().read(file) == _IMAGE.config
