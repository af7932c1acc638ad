"""All stores of one repository, and what one revision changes of them.

A store is for one platform, since podman finds images by their names alone::

    podmanStore             images of the first platform that was asked for
    podmanStores/NAME       the same, in a store of that name
    podmanStore-arm64-v8    images of a further platform
    podmanStores-arm64-v8/NAME
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final, Protocol

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.layout import sidecar_path
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar
from services.repository.errors import ImageAdditionError, LayerRemovalError
from services.repository.image_platforms import PlatformImage, platform_images
from services.repository.images import ImageDocuments
from services.repository.podman.ducc import NO_ROWS, DuccRows, split_lists
from services.repository.podman.inspection import StoreInspection, StoreTree
from services.repository.podman.layer_facts import Deletions, LayerFacts
from services.repository.podman.store import IMAGES, LAYERS, PodmanStore, StoreChanges

__all__ = ["PodmanStores", "PublishedStores", "store_images", "store_path", "store_paths"]

_PLAIN: Final = "podmanStore"
_NAMED: Final = "podmanStores"


def store_path(store: str | None, machine: str | None) -> str:
    """Return the path of a store, relative to the root of the repository.

    Parameters
    ----------
    store
        Its name; None for the one that has none.
    machine
        `ARCHITECTURE[:VARIANT]`; None for the first platform of images.
    """
    # A colon would end the path where overlay mounts name it.
    suffix = "" if machine is None else f"-{machine.replace(':', '-')}"
    return f"{_PLAIN}{suffix}" if store is None else f"{_NAMED}{suffix}/{store}"


def _is_store(directory: str) -> bool | None:
    """Tell whether a directory in the root of a repository is a store; None where it has stores in it."""
    if directory == _PLAIN or directory.startswith(f"{_PLAIN}-"):
        return True
    return None if directory == _NAMED or directory.startswith(f"{_NAMED}-") else False


def store_paths(names: Callable[[str], Iterable[str]]) -> list[str]:
    """Return the paths of the stores in a repository.

    Parameters
    ----------
    names
        Returns what is in a directory, given its path; the root's is empty.
    """
    found: list[str] = []
    for name in sorted(names("")):
        match _is_store(name):
            case True:
                found.append(name)
            case None:
                found += [f"{name}/{inner}" for inner in sorted(names(name))]
    return found


class PublishedStores(StoreTree, Protocol):
    """What a repository has."""

    def read_list(self, path: str) -> bytes | None:
        """Read a list of a store as it was published, whatever has become of it since, as far as that is known."""

    def stored(self, name: ImageName) -> ImageDocuments | None:
        """Return the image of a name if it is in stores, as its record says."""

    def paths(self) -> Sequence[str]:
        """Return the paths of its stores."""


class PodmanStores:
    """The stores of one transaction; blocking.

    Parameters
    ----------
    name
        Name of the repository, below `/cvmfs` of which clients have it.
    published
        What is there.
    try_mask
        Raises ImageAdditionError where a store cannot have a layer's deletions in a directory; None where all can.
    """

    def __init__(
        self,
        *,
        name: RepositoryName,
        published: PublishedStores,
        try_mask: Callable[[Digest, Deletions], None] | None = None,
    ) -> None:
        self._try_mask = try_mask
        self._mount = PurePosixPath("/cvmfs", name)
        self._published = published
        self._name = name
        self._stores: dict[str, PodmanStore] = {}
        self._inspections: dict[str, StoreInspection | None] = {}
        """Of what is published; None where a list is not one."""
        self._latest: dict[ImageName, Mapping[str, PlatformImage]] = {}
        """What the transaction has made of images."""

    def plan(self, name: ImageName, after: ImageDocuments | None) -> Callable[[], None]:
        """Find out all that is needed to put an image into its stores, instead of what has had its name.

        Parameters
        ----------
        after
            What the name is to stand for; None for nothing.

        Returns
        -------
        Callable
            Does it, and cannot fail.

        Raises
        ------
        ImageAdditionError
            A store is damaged, one of the layers is not in the repository, or the documents are not those of an image
            (`ImageRefusedError`); nothing has been changed.
        """
        before = self._latest[name] if name in self._latest else store_images(self._published.stored(name))
        new = store_images(after)
        layers = {layer.digest: self._layer(layer.digest, name) for image in new.values() for layer in image.layers}
        stores = {path: self._opened(path) for path in {*before, *new}}

        again = {path for path, image in new.items() if _same(image, before.get(path)) or self._opened(path).had(image)}
        damaged = [path for path in again if self._is_damaged(path, new[path])]

        def replace() -> None:
            for path in before.keys() - new.keys():
                stores[path].drop_name(name)
            for path, image in new.items():
                if path in damaged:
                    stores[path].mend(image)
                stores[path].put(name, image, layers)
            self._latest[name] = new

        return replace

    def plan_removal(self, config: Digest) -> Callable[[], None]:
        """Find out all that is needed to take an image out of all stores, with the layers that no other one has.

        Parameters
        ----------
        config
            SHA-256 of its configuration.

        Returns
        -------
        Callable
            Does it, and cannot fail.

        Raises
        ------
        ImageAdditionError
            A store is damaged; nothing has been changed.
        """
        published = self._published.paths()
        paths = {path for path in published if self._published.exists(f"{path}/overlay-images/{config}")}
        stores = [self._opened(path) for path in {*paths, *self._stores}]

        def remove() -> None:
            for store in stores:
                store.remove(config)

        return remove

    def check_unused(self, layer: Digest) -> None:
        """Make sure that nothing in any store leads to the files of a layer, after what has been changed so far.

        Raises
        ------
        LayerRemovalError
            Something does, or a store is damaged, so that nobody can tell.
        """
        for path in sorted({*self._published.paths(), *self._stores}):
            try:
                store = self._opened(path)
            except ImageAdditionError as error:
                raise LayerRemovalError(
                    f"layer {layer} may be in use by a store that cannot be read: {error}"
                ) from error
            if store.stands_on(layer):
                raise LayerRemovalError(
                    f"an image in {path} stands on layer {layer}, which therefore stays until that image has gone"
                )

    @property
    def changed(self) -> bool:
        """Whether anything is to be changed in any of them."""
        return any(store.changed for store in self._stores.values())

    def changes(self) -> Mapping[str, StoreChanges]:
        """Return what is to be changed in the directories of stores, by their paths."""
        return {path: store.changes() for path, store in self._stores.items() if store.changed}

    def entries(self) -> Mapping[str, frozenset[str]]:
        """Return the directories and links that stores which have changed have, or had before, by the stores' paths."""
        return {path: store.entries() for path, store in self._stores.items() if store.changed}

    def _is_damaged(self, path: str, image: PlatformImage) -> bool:
        """Tell whether something is not as it was written of an image that is, or has been, in a store."""
        if path not in self._inspections:
            try:
                self._inspections[path] = StoreInspection(self._published, path, self._name)
            except ImageAdditionError:  # the list that was published can be read
                self._inspections[path] = None
        inspection = self._inspections[path]
        return inspection is None or not inspection.is_sound(image)

    def _layer(self, digest: Digest, name: ImageName) -> LayerFacts:
        content = self._published.sidecar(digest)
        if content is None:
            raise ImageAdditionError(f"layer {digest} of {name} is not in the repository: publish the image again")
        try:
            facts = LayerFacts.of(LayerSidecar.parse(content, where=sidecar_path(digest)))
            facts.masked.check()
        except InvalidValueError as error:
            raise ImageAdditionError(
                f"layer {digest} of {name} cannot be in a store: {error}: remove the layer, and publish the image again"
            ) from error
        if facts.masked and self._try_mask is not None:
            self._try_mask(digest, facts.masked)
        return facts

    def _opened(self, path: str) -> PodmanStore:
        if path not in self._stores:

            def text(file: str) -> str:
                return (self._published.read(f"{path}/{file}") or b"").decode(errors="replace")

            def read(images: bytes, layers: bytes, ducc: DuccRows) -> PodmanStore:
                return PodmanStore.read(
                    images,
                    layers,
                    mount=self._mount,
                    where=path,
                    lower=lambda layer: text(f"overlay/{layer}/lower"),
                    ducc=ducc,
                )

            images, layers = (self._published.read_list(f"{path}/{file}") or b"[]" for file in (IMAGES, LAYERS))
            try:
                store = read(images, layers, NO_ROWS)
            except ImageAdditionError:
                ducc, images, layers = split_lists(images, layers, text=text)
                store = read(images, layers, ducc)
            self._stores[path] = store
        return self._stores[path]


def store_images(image: ImageDocuments | None) -> Mapping[str, PlatformImage]:
    """Return what an image shows in which store, by the stores' paths.

    Raises
    ------
    ImageRefusedError
        Its documents are not those of an image.
    """
    if image is None or image.outputs.podman is None:
        return {}
    store = image.outputs.podman.store
    return {
        store_path(store, each.machine if number else None): each for number, each in enumerate(platform_images(image))
    }


def _same(image: PlatformImage, other: PlatformImage | None) -> bool:
    return other is not None and other.config_digest == image.config_digest
