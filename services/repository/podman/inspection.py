"""Whether a store that has been published is one that podman can use: its lists, its directories and its layers agree.

Podman fails in every command where a lock, a size or a link of one of its stores is missing, or it does not see the
image at all; so everything that it reads is looked at.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Final, Protocol, Self

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.layout import layer_tree, sidecar_path, tar_split_path
from services.common.sidecar import LayerSidecar
from services.repository.image_platforms import PlatformImage
from services.repository.podman.descriptions import image_row
from services.repository.podman.ducc import split_lists
from services.repository.podman.identity import big_data_file, layer_ids, link_name, mask_id
from services.repository.podman.layer_facts import LayerFacts
from services.repository.podman.rows import ImageRow, LayerRow, read_images, read_layers
from services.repository.podman.store import IMAGES, LAYERS, LISTS

__all__ = ["StoreInspection", "StoreProblem", "StoreTree"]

_DIRECTORY: Final = re.compile(r"\.\./([0-9a-f]{64})/diff")
_SHORT: Final = re.compile(r"l/([A-Z2-7]{26})")


class StoreTree(Protocol):
    """A repository as it has been published; paths are relative to its root, as `os.fsdecode` writes them."""

    def read(self, path: str) -> bytes | None:
        """Read a file; None where there is none."""

    def target(self, path: str) -> str | None:
        """Return where a symbolic link leads; None where there is none."""

    def exists(self, path: str) -> bool:
        """Tell whether there is anything at a path."""

    def deletes(self, path: str) -> bool:
        """Tell whether overlayfs takes what is at a path for a deletion: a whiteout, or an opaque directory."""

    def sidecar(self, digest: Digest) -> bytes | None:
        """Read the sidecar of a layer; None if there is no such layer."""


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """One thing that is wrong with a store."""

    path: str
    """What has it, relative to the root of the repository."""
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """What the repository says of a layer."""

    diff_id: Digest
    archive_size: int
    size: int
    """Of the tar stream, in bytes."""
    has_mask: bool
    has_tar_split: bool

    @classmethod
    def of(cls, sidecar: LayerSidecar) -> Self:
        return cls(
            diff_id=Digest(sidecar.diff_id),
            archive_size=sidecar.archive_size,
            size=sidecar.uncompressed_size,
            has_mask=bool(LayerFacts.of(sidecar).masked),
            has_tar_split=sidecar.tar_split,
        )


class StoreInspection:
    """Looks at one store; blocking.

    Parameters
    ----------
    tree
        Where it is.
    path
        Its path.
    name
        Name of the repository, below `/cvmfs` of which clients have it.

    Raises
    ------
    ImageAdditionError
        A list is not as this suite writes it.
    """

    def __init__(self, tree: StoreTree, path: str, name: str) -> None:
        self._tree = tree
        self._path = path
        self._mount = PurePosixPath("/cvmfs", name)
        self._lists = {file: tree.read(f"{path}/{file}") for file in LISTS}
        # What DUCC has put in is as DUCC makes it, until the same images are published.
        ducc, *lists = split_lists(self._lists[IMAGES] or b"[]", self._lists[LAYERS] or b"[]", text=lambda _: "")
        images = read_images(lists[0], where=f"{path}/{IMAGES}")
        layers = read_layers(lists[1], where=f"{path}/{LAYERS}")
        self.images: Mapping[Digest, ImageRow] = {row.id: row for row in images}
        """Images by their identifiers."""
        self._image_rows: Sequence[ImageRow] = images
        self._layers: Mapping[Digest, LayerRow] = {row.id: row for row in layers}
        self._layer_rows: Sequence[LayerRow] = layers
        self._known_layers: dict[Digest, _Layer | None] = {}
        self._directories: dict[str, Digest | None] = {}
        self._sound_layers: dict[Digest, bool] = {}
        self._is_usable: bool | None = None
        self._is_duccs = bool(ducc.images) and not images

    def problems(self) -> Iterator[Iterator[StoreProblem]]:
        """Give all that is wrong with the store, by kinds; nothing of one that is all DUCC's."""
        if self._is_duccs:
            return
        yield self._frame()
        yield chain.from_iterable(map(self._layer, self._layer_rows))
        yield chain.from_iterable(map(self._image, self._image_rows))

    def shows(self, name: ImageName, image: PlatformImage) -> bool:
        """Tell whether podman finds an image by a name, and can run it."""
        row = self.images.get(image.config_digest)
        return row is not None and str(name) in row.names and self.is_sound(image)

    def is_sound(self, image: PlatformImage) -> bool:
        """Tell whether all is right that podman reads of an image, whatever it is called."""
        row = self.images.get(image.config_digest)
        if row is None or row != image_row(image, names=row.names) or not self._usable():
            return False
        return not any(self._image(row)) and all(map(self._is_sound_layer, self._chain(row.layer)))

    def _usable(self) -> bool:
        if self._is_usable is None:
            self._is_usable = not any(self._frame())
        return self._is_usable

    def _is_sound_layer(self, identifier: Digest) -> bool:
        if identifier not in self._sound_layers:
            row = self._layers.get(identifier)
            self._sound_layers[identifier] = row is not None and not any(self._layer(row))
        return self._sound_layers[identifier]

    def _chain(self, top: Digest | None) -> Iterator[Digest]:
        """Give a layer and those below it; the last one may be in no list."""
        seen: set[Digest] = set()
        while top is not None and top not in seen:
            yield top
            seen.add(top)
            top = self._layers[top].parent if top in self._layers else None

    def _frame(self) -> Iterator[StoreProblem]:
        """Look at what is there once."""
        if not self._tree.exists(f"{self._path}/overlay/l"):
            yield self._problem("overlay/l", "is missing")
        for file, lock in LISTS.items():
            content = self._lists[file]
            if content is None:
                yield self._problem(file, "is missing, or too large")
            elif self._tree.read(f"{self._path}/{lock}") != hashlib.sha256(content).hexdigest().encode():
                yield self._problem(
                    lock, "does not say which list it is for, by which running programs see that it changes"
                )
        for file, rows in ((IMAGES, self._image_rows), (LAYERS, self._layer_rows)):
            for identifier in _several(row.id for row in rows):
                yield self._problem(file, f"has {identifier} several times")
        for name in _several(name for row in self._image_rows for name in row.names):
            yield self._problem(IMAGES, f"several images are called {name}")

    def _layer(self, row: LayerRow) -> Iterator[StoreProblem]:
        diff_id, digest = Digest.from_oci(row.diff_digest), Digest.from_oci(row.compressed_diff_digest)
        above = diff_id if row.parent is None else list(layer_ids([row.parent, diff_id]))[-1]
        if above != row.id:
            yield self._problem(LAYERS, f"layer {row.id} should be called {above}, as podman computes it")
        if row.parent is not None and row.parent not in self._layers:
            yield self._problem(LAYERS, f"layer {row.id} stands on {row.parent}, which is not in the list")
        place, tree = f"overlay/{row.id}", self._mount / layer_tree(digest)
        if self._target(f"{place}/diff") != str(tree):
            yield self._problem(f"{place}/diff", f"does not lead to {tree}")
        elif (known := self._known(digest)) is None:
            yield self._problem(f"{place}/diff", "leads to a layer that is not in the repository")
        elif (known.diff_id, known.archive_size, known.size) != (diff_id, row.compressed_size, row.diff_size):
            yield self._problem(LAYERS, f"layer {row.id} has another digest or size there than {sidecar_path(digest)}")
        yield from self._mask(row.id, digest)
        yield from self._archive(row.id, digest)
        yield from self._names_of(row.id)
        if (expected := self._expected_below(row)) is not None and self._below(row) != expected:
            yield self._problem(f"{place}/lower", "names other layers than those that the list has below it")

    def _mask(self, identifier: Digest, digest: Digest) -> Iterator[StoreProblem]:
        """Look at what hides the deletions of a layer that its own tree does not show to everybody."""
        known = self._known(digest)
        if known is None or not known.has_mask:
            return
        mask = mask_id(identifier)
        yield from self._names_of(mask)
        # Read once more: a layer may delete a million files, and all layers are kept in mind.
        masked = LayerFacts.of(LayerSidecar.parse(self._tree.sidecar(digest) or b"", where=sidecar_path(digest))).masked
        for path in (*masked.whiteouts, *masked.opaque):
            file = f"overlay/{mask}/diff/{os.fsdecode(path)}"
            if not self._tree.deletes(f"{self._path}/{file}"):
                yield self._problem(file, f"does not delete what is below layer {identifier}")

    def _archive(self, identifier: Digest, digest: Digest) -> Iterator[StoreProblem]:
        """Look at what podman makes the layer's archive again with, if there is to be anything."""
        link, beside = f"overlay-layers/{identifier}.tar-split.gz", tar_split_path(digest)
        target = self._target(link)
        known = self._known(digest)
        if known is None or (target is None and not known.has_tar_split):
            return
        if target != str(self._mount / beside):
            yield self._problem(link, f"does not lead to {self._mount / beside}")
        elif not self._tree.exists(beside):
            yield self._problem(link, "leads to a file that is not in the repository")

    def _names_of(self, directory: Digest) -> Iterator[StoreProblem]:
        """Look at how a directory of `overlay` is named, and names itself."""
        short = f"overlay/l/{link_name(directory)}"
        if self._target(short) != f"../{directory}/diff":
            yield self._problem(short, f"does not lead to ../{directory}/diff")
        if self._read(f"overlay/{directory}/link") != link_name(directory).encode():
            yield self._problem(f"overlay/{directory}/link", f"is not {link_name(directory)}")

    def _image(self, row: ImageRow) -> Iterator[StoreProblem]:
        if row.layer is not None and row.layer not in self._layers:
            yield self._problem(IMAGES, f"image {row.id} has the layer {row.layer}, which is not in the list of layers")
        documents = {key: f"overlay-images/{row.id}/{big_data_file(key)}" for key in row.big_data_names}
        for key, needed in (("manifest", row.digest), (row.id.oci, row.id.oci)):
            if row.big_data_digests.get(key) != needed or key not in documents:
                yield self._problem(IMAGES, f"image {row.id} has no {key} of the digest {needed}")
        for key, file in documents.items():
            content = self._read(file)
            found = None if content is None else (f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
            if found is None or found != (row.big_data_digests.get(key), row.big_data_sizes.get(key)):
                yield self._problem(file, "is missing, or not what the list of images says")

    def _below(self, row: LayerRow) -> list[Digest | None]:
        """Return the directories that `lower` names; None for what is not there."""
        lower = self._read(f"overlay/{row.id}/lower") or b""
        return [self._directory(name) for name in lower.decode(errors="replace").split(":")] if lower else []

    def _directory(self, name: str) -> Digest | None:
        """Return the directory that a short name leads to, if it is there."""
        if name not in self._directories:
            match = _SHORT.fullmatch(name)
            target = None if match is None else _DIRECTORY.fullmatch(self._target(f"overlay/l/{match[1]}") or "")
            is_there = target is not None and self._tree.exists(f"{self._path}/overlay/{target[1]}/diff")
            self._directories[name] = Digest(target[1]) if target is not None and is_there else None
        return self._directories[name]

    def _expected_below(self, row: LayerRow) -> list[Digest] | None:
        """Return the directories of the layers below, and of the masks of all, that directly below first.

        None where a layer is not known.
        """
        below: list[Digest] = []
        for identifier in self._chain(row.id):
            if identifier != row.id:
                below.append(identifier)
            layer = self._layers.get(identifier)
            known = None if layer is None else self._known(Digest.from_oci(layer.compressed_diff_digest))
            if known is None:
                return None
            if known.has_mask:
                below.append(mask_id(identifier))
        return below

    def _known(self, digest: Digest) -> "_Layer | None":
        if digest not in self._known_layers:
            content = self._tree.sidecar(digest)
            try:
                sidecar = None if content is None else LayerSidecar.parse(content, where=sidecar_path(digest))
            except InvalidValueError:
                sidecar = None
            self._known_layers[digest] = None if sidecar is None else _Layer.of(sidecar)
        return self._known_layers[digest]

    def _problem(self, file: str, what: str) -> StoreProblem:
        return StoreProblem(f"{self._path}/{file}", what)

    def _read(self, file: str) -> bytes | None:
        return self._tree.read(f"{self._path}/{file}")

    def _target(self, link: str) -> str | None:
        return self._tree.target(f"{self._path}/{link}")


def _several(values: Iterable[str]) -> Iterator[str]:
    """Give values that come more than once, each time that they come again."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            yield value
        seen.add(value)
