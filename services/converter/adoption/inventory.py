"""Finds the images in a repository that is to be taken over, and judges them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import METADATA_DIRECTORY, ImageName
from services.common.image_outputs import FlatOutput, ImageOutputs, PodmanOutput
from services.common.layout import LAYERS_DIRECTORY
from services.converter.adoption.documents import Manifest, own_outputs, read_manifest
from services.converter.adoption.files import names_in
from services.converter.adoption.layers import find_layer
from services.converter.adoption.model import FoundImage, FoundLayer, FoundStore, Inventory, Verdict
from services.converter.adoption.names import (
    Documents,
    documents_in,
    flat_of_link,
    machines_of,
    public_links,
    reached,
)
from services.converter.adoption.stores import find_stores, store_name
from services.converter.errors import AdoptionError
from services.repository.images import MULTIARCH_DIRECTORY
from services.repository.public_names import FLAT_DIRECTORY

__all__ = ["take_inventory"]

_USUAL: Final = "amd64"
"""The processor of clients that do not say which they have."""
_AT_ONCE: Final = 32
"""Layers that are looked at side by side: a client of CVMFS fetches catalogs for each."""

_Found = TypeVar("_Found")


def take_inventory(root: Path, *, contents: bool) -> Inventory:
    """Find all images, and what is wrong with them; blocking.

    Parameters
    ----------
    root
        Root of the repository, as clients see it.
    contents
        Whether to look at all files of layers.

    Raises
    ------
    AdoptionError
        The repository cannot be read, or is none of images.
    """
    if not (root / METADATA_DIRECTORY).is_dir():
        raise AdoptionError(
            f"{root / METADATA_DIRECTORY} is no directory: name the root of a mounted repository that has images"
        )
    documents = documents_in(root)
    stores = find_stores(root)
    images = [_Finder(root, name, places, stores).find() for name, places in sorted(documents.places.items())]
    named = sorted({digest for image in images for digest in image.layers})
    return Inventory(
        root=str(root),
        images=images,
        layers={layer.digest: layer for layer in _layers(root, named, contents=contents)},
        stores=stores,
        strays=[*_strays(root, documents, images, named)],
    )


def _layers(root: Path, digests: Sequence[Digest], *, contents: bool) -> Iterator[FoundLayer]:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from threads.map(lambda digest: find_layer(root, digest, contents=contents), digests)


class _Finder:
    """Finds out about one image."""

    def __init__(self, root: Path, name: ImageName, places: Sequence[str], stores: Sequence[FoundStore]) -> None:
        self._root = root
        self._name = name
        self._places = places
        self._stores = stores
        self._faults: list[str] = []

    def find(self) -> FoundImage:
        """Return what there is of it."""
        own = self._root / METADATA_DIRECTORY / self._places[0]
        ours = self._tried(lambda: own_outputs(self._name, own))
        manifests = [manifest for place in self._places if (manifest := self._manifest(place)) is not None]
        flats = self._flats()
        if ours is None:
            self._compare(manifests, flats)
        return FoundImage(
            name=self._name,
            verdict=Verdict.ANEW if ours is None else Verdict.OURS,
            platforms=self._platforms(),
            outputs=self._outputs(manifests, flats) if ours is None else ours,
            layers=tuple(dict.fromkeys(digest for manifest in manifests for digest in manifest.layers)),
            flats=tuple(flats),
            faults=tuple(self._faults),
        )

    def _tried(self, read: Callable[[], _Found | None]) -> _Found | None:
        try:
            return read()
        except AdoptionError as error:
            self._faults.append(str(error))
            return None

    def _manifest(self, place: str) -> Manifest | None:
        return self._tried(lambda: read_manifest(self._root / METADATA_DIRECTORY / place))

    def _flats(self) -> list[Digest]:
        """Return the flat images that its names lead to, that which its own name leads to first."""
        path = self._name.path
        if not (self._root / path).is_symlink():
            return []
        places = [f"{MULTIARCH_DIRECTORY}/{machine}/{path}" for machine in machines_of(self._root, self._name)]
        if not (places and "$(" in os.readlink(self._root / path)):  # which only clients of CVMFS expand
            places.insert(0, path)
        found = []
        for place in places:
            config = flat_of_link(self._root, place)
            if config is not None:
                found.append(config)
            elif reached(self._root, place):
                self._faults.append(f"{place} leads to no flat image")
            else:
                self._faults.append(f"{place} leads nowhere")
        return list(dict.fromkeys(found))

    def _compare(self, manifests: Sequence[Manifest], flats: Sequence[Digest]) -> None:
        """Compare what is shown with what the documents say."""
        configs = {manifest.config for manifest in manifests}
        self._faults += [
            f"its name leads to a flat image of another version, {flat}"
            for flat in flats
            if configs and flat not in configs
        ]

    def _platforms(self) -> tuple[str, ...]:
        """Return what the repository tells of its platforms; DUCC says nothing where it has made one only."""
        machines = {place.split("/")[1] for place in self._places if place.startswith(f"{MULTIARCH_DIRECTORY}/")}
        machines.update(machines_of(self._root, self._name))
        ordered = sorted(machines, key=lambda machine: (machine.partition(":")[0] != _USUAL, machine))
        return tuple(f"linux/{machine.replace(':', '/')}" for machine in ordered)

    def _outputs(self, manifests: Sequence[Manifest], flats: Sequence[Digest]) -> ImageOutputs:
        configs = {*(manifest.config for manifest in manifests), *flats}
        stores = [store for store in self._stores if configs & store.images]
        return ImageOutputs(
            flat=FlatOutput() if (self._root / self._name.path).is_symlink() else None,
            podman=PodmanOutput(store=store_name(stores[0].path)) if stores else None,
        )


def _strays(root: Path, documents: Documents, images: Sequence[FoundImage], named: Sequence[Digest]) -> Iterator[str]:
    """Give what belongs to no image, or to none that can be named."""
    yield from (f"{METADATA_DIRECTORY}/{each}: documents of an image whose name is none" for each in documents.nameless)
    known = {image.name.path for image in images}
    for place in sorted(public_links(root)):
        if place in known:
            continue
        where = "" if reached(root, place) else ", and leads nowhere"
        yield f"{place}: a name without documents{where}"
    flats = {flat for image in images for flat in image.flats}
    for directory, used, what in (
        (FLAT_DIRECTORY, flats, "flat images that no image's name leads to"),
        (LAYERS_DIRECTORY, frozenset(named), "layers that no image names"),
    ):
        others = [digest for digest in _digests(root / directory) if digest not in used]
        if others:
            yield f"{directory}: {len(others)} {what}, such as {others[0]}"


def _digests(top: Path) -> Iterator[Digest]:
    for shelf in names_in(top):
        for name in names_in(top / shelf):
            with suppress(InvalidValueError):
                yield Digest(name)
