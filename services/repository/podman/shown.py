"""Which images stores show, and which they should."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.repository.errors import ImageAdditionError
from services.repository.images import ImageDocuments
from services.repository.podman.descriptions import image_names
from services.repository.podman.inspection import StoreInspection, StoreTree
from services.repository.podman.rows import ImageRow
from services.repository.podman.stores import store_images

__all__ = ["StoredImage", "StoredTree", "images_in_stores", "images_not_in_stores", "wanted_in_stores"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class StoredImage:
    """An image in a store, by one of its names."""

    store: str
    """Path of the store, relative to the root of the repository."""
    name: str
    """What podman finds it by, but for Docker Hub's short forms of it; empty for an image that has lost its name."""
    config: Digest
    """SHA-256 of its configuration."""


class StoredTree(StoreTree, Protocol):
    """A repository as it has been published."""

    def paths(self) -> Sequence[str]:
        """Return the paths of its stores."""


def wanted_in_stores(image: ImageDocuments) -> frozenset[StoredImage]:
    """Return as what stores have to show an image; nothing where it is to be in none.

    Raises
    ------
    ImageRefusedError
        Its documents are not those of an image.
    """
    return frozenset(
        StoredImage(store=store, name=image.name, config=each.config_digest)
        for store, each in store_images(image).items()
    )


def images_in_stores(tree: StoredTree, repository: str) -> Collection[StoredImage]:
    """Return all that stores show; what cannot be read shows nothing. Blocking.

    Parameters
    ----------
    repository
        Name of the repository.
    """
    found: set[StoredImage] = set()
    for path in tree.paths():
        try:
            inspection = StoreInspection(tree, path, repository)
        except (ImageAdditionError, InvalidValueError):
            continue
        for row in inspection.images.values():
            found |= {StoredImage(store=path, name=name, config=row.id) for name in _own_names(row) or ("",)}
    return found


def images_not_in_stores(tree: StoreTree, repository: str, images: Sequence[ImageDocuments]) -> Collection[ImageName]:
    """Return which images podman would not find in all stores that they are to be in, or could not run. Blocking.

    Parameters
    ----------
    repository
        Name of the repository.
    images
        As they are to be.

    Raises
    ------
    ImageRefusedError
        Their documents are not those of images.
    """
    inspections: dict[str, StoreInspection | None] = {}

    def inspected(path: str) -> StoreInspection | None:
        if path not in inspections:
            try:
                inspections[path] = StoreInspection(tree, path, repository)
            except ImageAdditionError:
                inspections[path] = None
        return inspections[path]

    return frozenset(image.name for image in images if not _is_shown(image, inspected))


def _own_names(row: ImageRow) -> Collection[str]:
    """Return the names of an image that do not only follow from another one."""
    short = set()
    for name in row.names:
        with suppress(InvalidValueError):
            short |= {*image_names(ImageName(name))} - {name}
    return set(row.names) - short


def _is_shown(image: ImageDocuments, inspected: Callable[[str], StoreInspection | None]) -> bool:
    return all(
        inspection is not None and inspection.shows(image.name, each)
        for path, each in store_images(image).items()
        for inspection in (inspected(path),)
    )
