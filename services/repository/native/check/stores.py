"""Checks podman's stores in a revision: whether their lists, their directories and the repository's layers agree."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from services.common.digest import Digest
from services.common.layout import layer_tree
from services.repository.errors import ImageAdditionError
from services.repository.native.check.problem import Problem, at_most_few
from services.repository.native.reader.entries import show_path
from services.repository.native.reader.revision import Revision
from services.repository.podman.ducc import split_lists
from services.repository.podman.identity import big_data_file, layer_ids, link_name
from services.repository.podman.rows import ImageRow, LayerRow, read_images, read_layers
from services.repository.podman.store import IMAGES, LAYERS, LISTS
from services.repository.podman.stores import is_store

__all__ = ["check_stores"]

_LIST_LIMIT: Final = 256 << 20
"""Largest list that is read, in bytes."""
_SHORT: Final = re.compile(r"l/([A-Z2-7]{26})")
_TARGET: Final = re.compile(rb"\.\./([0-9a-f]{64})/diff")
_REMEDY: Final = "take the images that have it out of the store, and publish them again"


def check_stores(revision: Revision, name: str) -> Iterator[Problem]:
    """Iterate over what is wrong with the stores of a revision.

    Parameters
    ----------
    name
        Name of the repository, below `/cvmfs` of which clients have it.

    Raises
    ------
    ObjectMissingError, StorageError, BrokenRepositoryError
        A catalog or a list cannot be read.
    """
    for path in _stores(revision):
        place = show_path(path)
        try:
            check = _StoreCheck(revision, path, name)
        except ImageAdditionError as error:
            yield Problem(place, f"a list of the store cannot be read: {error}", _REMEDY)
            continue
        for kind in (check.files(), check.layers(), check.images()):
            yield from at_most_few((Problem(show_path(at), what, _REMEDY) for at, what in kind), place=place)


def _stores(revision: Revision) -> Iterator[bytes]:
    for entry in revision.list(b""):
        kind = is_store(entry.name.decode(errors="replace")) if entry.is_directory else False
        if kind:
            yield entry.path
        elif kind is None:
            yield from (inner.path for inner in revision.list(entry.path) if inner.is_directory)


class _StoreCheck:
    """Compares one store with itself and with the layers of the revision; each problem is a path and a text."""

    def __init__(self, revision: Revision, path: bytes, name: str) -> None:
        self._revision = revision
        self._path = path
        self._mount = f"/cvmfs/{name}/"
        where = show_path(path)
        # What DUCC has made is as DUCC makes it until the same images are published.
        ducc, images, layers = split_lists(self._read(IMAGES) or b"", self._read(LAYERS) or b"", text=lambda _: "")
        self._images: Sequence[ImageRow] = read_images(images, where=f"{where}/{IMAGES}")
        rows = read_layers(layers, where=f"{where}/{LAYERS}")
        self._layers: Mapping[Digest, LayerRow] = {row.id: row for row in rows}
        self._is_duccs = not self._images and bool(ducc.images)

    def files(self) -> Iterator[tuple[bytes, str]]:
        for list_, lock in () if self._is_duccs else LISTS.items():
            content = self._read(list_)
            expected = hashlib.sha256(content or b"").hexdigest().encode()
            if self._read(lock) != expected:
                yield self._at(lock), "does not say which list it is for, by which running programs see that it changes"

    def layers(self) -> Iterator[tuple[bytes, str]]:
        for row in self._layers.values():
            place = f"overlay/{row.id}"
            diff_id = Digest.from_oci(row.diff_digest)
            above = diff_id if row.parent is None else list(layer_ids([row.parent, diff_id]))[-1]
            if above != row.id:
                yield self._at(LAYERS), f"layer {row.id} should be called {above}, as podman computes it"
            if row.parent is not None and row.parent not in self._layers:
                yield self._at(LAYERS), f"layer {row.id} stands on {row.parent}, which is not in the list"
            tree = layer_tree(Digest.from_oci(row.compressed_diff_digest))
            if self._target(f"{place}/diff") != (self._mount + tree).encode():
                yield self._at(f"{place}/diff"), f"does not lead to {self._mount}{tree}"
            elif self._revision.stat(b"/" + tree.encode()) is None:
                yield self._at(f"{place}/diff"), "leads to a layer that is not in the repository"
            if self._target(f"overlay/l/{link_name(row.id)}") != f"../{row.id}/diff".encode():
                yield self._at(f"overlay/l/{link_name(row.id)}"), f"does not lead to ../{row.id}/diff"
            if self._read(f"{place}/link") != link_name(row.id).encode():
                yield self._at(f"{place}/link"), f"is not {link_name(row.id)}"
            if self._below(row) != self._listed_below(row):
                yield self._at(f"{place}/lower"), "names other layers than those that the list has below it"

    def images(self) -> Iterator[tuple[bytes, str]]:
        names: set[str] = set()
        for row in self._images:
            if row.layer is not None and row.layer not in self._layers:
                yield self._at(IMAGES), f"image {row.id} has the layer {row.layer}, which is not in the list of layers"
            for key in row.big_data_names:
                file = f"overlay-images/{row.id}/{big_data_file(key)}"
                content = self._read(file)
                digest = None if content is None else f"sha256:{hashlib.sha256(content).hexdigest()}"
                if digest != row.big_data_digests.get(key):
                    yield self._at(file), "is missing, or not what the list of images says"
            for name in names.intersection(row.names):
                yield self._at(IMAGES), f"several images are called {name}"
            names.update(row.names)

    def _below(self, row: LayerRow) -> list[Digest] | None:
        """Return the layers that `lower` names, without masks; None where it names something that is not there."""
        lower = self._read(f"overlay/{row.id}/lower") or b""
        below = []
        for name in lower.decode(errors="replace").split(":") if lower else ():
            match = _SHORT.fullmatch(name)
            target = None if match is None else _TARGET.fullmatch(self._target(f"overlay/l/{match[1]}") or b"")
            if target is None:
                return None
            layer = Digest(target[1].decode())
            if self._revision.stat(self._at(f"overlay/{layer}/diff")) is None:
                return None
            if layer in self._layers:
                below.append(layer)
        return below

    def _listed_below(self, row: LayerRow) -> list[Digest]:
        below: list[Digest] = []
        while row.parent is not None and row.parent in self._layers and row.parent not in below:
            below.append(row.parent)
            row = self._layers[row.parent]
        return below

    def _at(self, file: str) -> bytes:
        return self._path + b"/" + file.encode()

    def _read(self, file: str) -> bytes | None:
        entry = self._revision.stat(self._at(file))
        if entry is None or not entry.is_file or entry.size > _LIST_LIMIT:
            return None
        return b"".join(self._revision.content(entry))

    def _target(self, link: str) -> bytes | None:
        entry = self._revision.stat(self._at(link))
        return entry.target if entry is not None and entry.is_symlink else None
