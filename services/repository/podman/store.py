"""One store: which images it has, and the files and links that say so.

::

    overlay-images/images.json, images.lock       all images: identifiers, names, digests
    overlay-images/IMAGE/manifest, =BASE64        the documents of one
    overlay-layers/layers.json, layers.lock       all layers: identifiers, parents, digests, sizes
    overlay-layers/LAYER.tar-split.gz             -> .../.layers/XX/DIGEST/layer.tar-split.gz, for save and push
    overlay/LAYER/diff                            -> /cvmfs/REPOSITORY/.layers/XX/DIGEST/layerfs
    overlay/LAYER/link, lower                     short names of the layer, and of those below it
    overlay/l/SHORT                               -> ../LAYER/diff

A layer whose tree does not show its deletions to everybody has a mask directly below it (see `services.common.mask`),
which is a lower directory like those of layers, and is in no list.

`diff` is absolute, since commit, build and save fail on a relative one. The locks are there since podman cannot make
them where it cannot write, and fails without. A store that has nothing in it has all this as well: podman fails in
every command where one that it has been told of is missing.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final, Self

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import layer_tree, tar_split_path
from services.repository.image_platforms import PlatformImage
from services.repository.podman.descriptions import created, image_documents, image_names, image_row, layer_row
from services.repository.podman.ducc import NO_ROWS, DuccRows
from services.repository.podman.identity import big_data_file, layer_ids, link_name, mask_id
from services.repository.podman.layer_facts import Deletions, LayerFacts
from services.repository.podman.rows import (
    ImageRow,
    LayerRow,
    read_images,
    read_layers,
    write_rows,
)

__all__ = [
    "IMAGES",
    "LAYERS",
    "LISTS",
    "PodmanStore",
    "StoreChanges",
]

IMAGES: Final = "overlay-images/images.json"
LAYERS: Final = "overlay-layers/layers.json"
LISTS: Final = {IMAGES: "overlay-images/images.lock", LAYERS: "overlay-layers/layers.lock"}
"""The two lists, and their locks."""
_SHORT: Final = "overlay/l"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreChanges:
    """What is to be changed in the directory of a store."""

    removed: Sequence[str] = ()
    """Directories and links that go, with all that is in them, before anything is written."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Contents by paths; some are there already."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Targets by paths; what is there is wrong."""
    masks: Mapping[str, Deletions] = field(default_factory=dict)
    """Directories, by their paths, in which overlayfs is to see deletions, and nothing else."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.files)


class PodmanStore:
    """What is in one store, and what becomes of it.

    Parameters
    ----------
    images, layers
        What is in it.
    mount
        Where clients see the repository.
    lower
        Reads what is below a layer that is in it, as its file `lower` says.
    ducc
        What DUCC has put in besides.
    """

    def __init__(
        self,
        *,
        images: Sequence[ImageRow],
        layers: Sequence[LayerRow],
        mount: PurePosixPath,
        lower: Callable[[Digest], str],
        ducc: DuccRows = NO_ROWS,
    ) -> None:
        self._images = {row.id: row for row in images}
        self._layers = {row.id: row for row in layers}
        self._before = frozenset(self._images), frozenset(self._layers)
        self._documents: dict[Digest, Mapping[str, bytes]] = {}
        self._anew: set[Digest] = set()
        """Images whose documents are written whatever is there."""
        self._mended: frozenset[str] = frozenset()
        """Directories and links that are written anew."""
        self._trees: dict[Digest, Digest] = {}
        """Archives of new layers, by the layers' identifiers."""
        self._facts: dict[Digest, LayerFacts] = {}
        """Of new layers, by their identifiers."""
        self._mount = mount
        self._lower = lower
        self._ducc = ducc
        self._changed = False

    @classmethod
    def read(
        cls,
        images: bytes,
        layers: bytes,
        *,
        mount: PurePosixPath,
        where: str,
        lower: Callable[[Digest], str],
        ducc: DuccRows = NO_ROWS,
    ) -> Self:
        """Read a store from its two lists.

        Parameters
        ----------
        where
            Path of the store, for errors.
        mount, lower, ducc
            As for the store itself.

        Raises
        ------
        ImageAdditionError
            They are not as this suite writes them.
        """
        return cls(
            images=read_images(images, where=f"{where}/{IMAGES}"),
            layers=read_layers(layers, where=f"{where}/{LAYERS}"),
            mount=mount,
            lower=lower,
            ducc=ducc,
        )

    @property
    def changed(self) -> bool:
        """Whether anything is to be changed in the store's directory."""
        return self._changed

    def had(self, image: PlatformImage) -> bool:
        """Tell whether an image was in the store when it was read."""
        return image.config_digest in self._before[0]

    def put(self, name: ImageName, image: PlatformImage, layers: Mapping[Digest, LayerFacts]) -> None:
        """Put an image in, and give it a name, which no other image has from now on.

        What was called by the name stays, without it: containers may run on its layers.

        Parameters
        ----------
        layers
            What is known of its layers, by the digests of their archives.
        """
        made = created(image)
        parent: Digest | None = None
        for layer, identifier in zip(image.layers, layer_ids(layer.diff_id for layer in image.layers), strict=True):
            if identifier not in self._layers:
                facts = layers[layer.digest]
                self._layers[identifier] = layer_row(identifier, parent, layer, size=facts.size, made=made)
                self._trees[identifier] = layer.digest
                self._facts[identifier] = facts
            parent = identifier
        self._ducc.make_way(image.config_digest, layer_ids(layer.diff_id for layer in image.layers))
        self._drop_name(name, but=image.config_digest)
        row = image_row(image, names=sorted({*self._names(image.config_digest), *image_names(name)}))
        if self._images.get(row.id) != row or row.id in self._anew:
            self._images[row.id] = row
            self._documents[row.id] = image_documents(image)
            self._changed = True

    def mend(self, image: PlatformImage) -> None:
        """Let all that there is of an image, and of its layers, be written anew when it is put in again."""
        layers = frozenset(layer_ids(layer.diff_id for layer in image.layers))
        for identifier in layers:
            self._layers.pop(identifier, None)
        images, known = self._before
        self._before = images, known - layers
        self._anew.add(image.config_digest)
        self._mended |= _entries([image.config_digest], layers)

    def drop_name(self, name: ImageName) -> None:
        """Let no image have a name."""
        self._drop_name(name, but=None)

    def _drop_name(self, name: ImageName, *, but: Digest | None) -> None:
        names = frozenset(image_names(name))
        self._changed |= self._ducc.drop_names(names, but=but)
        for row in self._images.values():
            if row.id != but and names.intersection(row.names):
                row.names = [each for each in row.names if each not in names]
                self._changed = True

    def remove(self, image: Digest) -> None:
        """Take an image out, if it is in, with the layers that no other one has."""
        if self._images.pop(image, None) is None:
            return
        self._changed = True
        used = self._ducc.needed()
        for row in self._images.values():
            layer = row.layer
            while layer is not None and layer not in used:
                used.add(layer)
                layer = self._layers[layer].parent if layer in self._layers else None
        self._layers = {identifier: row for identifier, row in self._layers.items() if identifier in used}

    def stands_on(self, layer: Digest) -> bool:
        """Tell whether something that is in leads to the files of a layer, whose archive has a digest."""
        if self._ducc.stand_on(layer):
            return True
        return any(row.compressed_diff_digest == layer.oci for row in self._layers.values())

    def changes(self) -> StoreChanges:
        """Return what is to be changed in the store's directory; both lists, if anything is."""
        if not self._changed:
            return StoreChanges()
        lists = {
            IMAGES: _written(self._images, self._ducc.images),
            LAYERS: _written(self._layers, self._ducc.layers),
        }
        files = lists | {LISTS[path]: hashlib.sha256(content).hexdigest().encode() for path, content in lists.items()}
        links: dict[str, str] = {}
        for identifier, documents in self._documents.items():
            if identifier in self._images:
                files |= {
                    f"overlay-images/{identifier}/{big_data_file(key)}": content for key, content in documents.items()
                }
        masks: dict[str, Deletions] = {}
        for identifier in sorted(self._layers.keys() - self._before[1]):
            place = f"overlay/{identifier}"
            links[f"{place}/diff"] = str(self._mount / layer_tree(self._trees[identifier]))
            links[f"{_SHORT}/{link_name(identifier)}"] = f"../{identifier}/diff"
            files[f"{place}/link"] = link_name(identifier).encode()
            if lower := self._below(identifier):
                files[f"{place}/lower"] = ":".join(lower).encode()
            if self._facts[identifier].tar_split:
                links[_tar_split(identifier)] = str(self._mount / tar_split_path(self._trees[identifier]))
            if deletions := self._facts[identifier].masked:
                mask = mask_id(identifier)
                links[f"{_SHORT}/{link_name(mask)}"] = f"../{mask}/diff"
                files[f"overlay/{mask}/link"] = link_name(mask).encode()
                masks[f"overlay/{mask}/diff"] = deletions
        removed = _entries(*self._before) - _entries(self._images, self._layers) | self._mended
        return StoreChanges(removed=sorted(removed.union(self._ducc.removed)), files=files, links=links, masks=masks)

    def entries(self) -> frozenset[str]:
        """Return all directories and links that the store has, or had when it was read."""
        entries = _entries(*self._before) | _entries(self._images, self._layers)
        return entries.union(LISTS, LISTS.values(), [_SHORT], self._ducc.entries)

    def _names(self, image: Digest) -> Sequence[str]:
        row = self._images.get(image)
        return row.names if row else ()

    def _below(self, identifier: Digest) -> list[str]:
        """Return the short names of what is below a layer, that which is directly below it first."""
        if identifier in self._before[1]:
            lower = self._lower(identifier)
            return lower.split(":") if lower else []
        names = [f"l/{link_name(mask_id(identifier))}"] if self._facts[identifier].masked else []
        parent = self._layers[identifier].parent
        if parent is not None:
            names += [f"l/{link_name(parent)}", *self._below(parent)]
        return names


def _entries(images: Iterable[Digest], layers: Iterable[Digest]) -> frozenset[str]:
    """Return the directories and links that a store has for images and layers, relative to its own directory."""
    entries = {f"overlay-images/{identifier}" for identifier in images}
    for identifier in layers:
        entries.add(_tar_split(identifier))
        for each in (identifier, mask_id(identifier)):
            entries |= {f"overlay/{each}", f"{_SHORT}/{link_name(each)}"}
    return frozenset(entries)


def _tar_split(layer: Digest) -> str:
    """Return where podman looks for what it makes the archive of a layer again with."""
    return f"overlay-layers/{layer}.tar-split.gz"


def _written(
    rows: Mapping[Digest, ImageRow] | Mapping[Digest, LayerRow], others: Mapping[Digest, Mapping[str, object]]
) -> bytes:
    return write_rows([row for _, row in sorted(rows.items())], [row for _, row in sorted(others.items())])
