"""Stores of podman's in a tree: the lists belong to the batch, what they name is there before and after.

::

    podmanStore/overlay-images/images.json     -> .batches/.head/podman/podmanStore/overlay-images/images.json
    podmanStore/overlay/LAYER, overlay-images/IMAGE

So all lists change at once with the link to the last batch. A directory that no list names any more goes with the next
batch that changes its store, when nobody reads it.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.common.archive.ondisk import OPAQUE_XATTR
from services.common.deletion import delete_tree
from services.common.digest import Digest
from services.common.durable import sync_directory, sync_tree, write_file
from services.common.image_name import ImageName
from services.common.mask import UNPRIVILEGED_OPAQUE_XATTR, MaskError, fill_mask
from services.common.replacement import replace_directory
from services.common.repository_name import RepositoryName
from services.repository.directory.batches import BATCHES, HEAD
from services.repository.directory.images import ImageIndex
from services.repository.directory.store_tree import LISTS_OF_STORES, DirectoryStoreTree
from services.repository.errors import ImageAdditionError
from services.repository.images import ImageDocuments
from services.repository.podman.layer_facts import Deletions
from services.repository.podman.store import LISTS, StoreChanges
from services.repository.podman.stores import PodmanStores

__all__ = ["DirectoryStores"]

_ALL_LISTS: Final = (*LISTS, *LISTS.values())
_LINKS: Final = ("overlay/l", "overlay-layers")
"""Directories that have links of all layers side by side."""
_NEW: Final = ".new-"
_TRIAL: Final = ".mask".ljust(250, "-")
"""A directory of the transaction, whose path is longer than that of any mask in a store."""


class DirectoryStores:
    """The stores of a tree, and what one transaction changes of them; blocking.

    Parameters
    ----------
    name, root
        Name of the repository, and the root of its tree.
    staging
        Directory of the transaction, which becomes that of the batch.
    images
        What is published.
    """

    def __init__(self, *, name: RepositoryName, root: Path, staging: Path, images: ImageIndex) -> None:
        self._root = root
        self._staging = staging
        self._head = root / BATCHES / HEAD / LISTS_OF_STORES
        self._tree = DirectoryStoreTree(root=root, staging=staging, images=images)
        self._stores = PodmanStores(name=name, published=self._tree, try_mask=self._try_mask)

    def _try_mask(self, layer: Digest, deletions: Deletions) -> None:
        """Make sure that the file system takes a layer's deletions, as long as only one image fails where it does not.

        Raises
        ------
        ImageAdditionError
            It does not: as without privileges, or where paths are too long.
        """
        trial = self._staging / _TRIAL
        try:
            _make_mask(trial, layer, deletions)
        except (MaskError, OSError) as error:
            raise ImageAdditionError(f"the image cannot be in a store: {error}") from error
        finally:
            delete_tree(trial)

    def plan(self, name: ImageName, after: ImageDocuments | None) -> Callable[[], None]:
        """Prepare to put an image into its stores; parameters, result and errors as of `PodmanStores.plan`."""
        return self._stores.plan(name, after)

    def plan_removal(self, config: Digest) -> Callable[[], None]:
        """Prepare to take an image out of all stores; all as of the same of `PodmanStores`."""
        return self._stores.plan_removal(config)

    def check_unused(self, layer: Digest) -> None:
        """Make sure that no store leads to a layer; errors as of `PodmanStores.check_unused`."""
        self._stores.check_unused(layer)

    def links(self) -> Iterator[tuple[Path, str]]:
        """Give the links to lists that come into the place of DUCC's lists, and where they lead."""
        for path in self._stores.changes():
            for file in _ALL_LISTS:
                if _is_file(self._root / path / file):
                    yield self._root / path / file, _target(path, file)

    def superseded(self) -> Iterator[Path]:
        """Give the published lists that nobody reaches when the batch is visible."""
        if self._stores.changed:
            with suppress(FileNotFoundError):
                yield self._head.resolve(strict=True)

    def write(self) -> None:
        """Write what the batch brings, and bring it to the disk; nobody reads it before the batch is visible."""
        changes = self._stores.changes()
        lists = self._staging / LISTS_OF_STORES
        with suppress(FileNotFoundError):
            published = self._head.resolve(strict=True)
            if not changes:
                lists.symlink_to(os.path.relpath(published, self._staging.resolve()))
                return
            for path in self._tree.paths():
                if path not in changes:
                    self._keep(published / path, lists / path)
        for path, change in changes.items():
            for file in _ALL_LISTS:
                _write(lists / path / file, change.files[file])
            self._write(path, change)
        if changes:
            sync_tree(lists, entries=len(_ALL_LISTS) * len(changes))

    def _keep(self, published: Path, lists: Path) -> None:
        for file in _ALL_LISTS:
            (lists / file).parent.mkdir(parents=True, exist_ok=True)
            os.link(published / file, lists / file)

    def _write(self, path: str, change: StoreChanges) -> None:
        store = self._root / path
        for directory, files in _by_directory(change.files).items():
            links = {link: target for link, target in change.links.items() if os.path.dirname(link) == directory}
            _put_directory(store / directory, files, links, change.masks.get(f"{directory}/diff"))
        for directory in _LINKS:
            (store / directory).mkdir(parents=True, exist_ok=True)
        for link, target in change.links.items():
            if os.path.dirname(link) in _LINKS:
                _link(store / link, target)
        for file in _ALL_LISTS:
            if not _is_file(store / file):
                (store / file).parent.mkdir(parents=True, exist_ok=True)
                _link(store / file, _target(path, file))
        for name in ("overlay", "overlay/l", "overlay-images", "overlay-layers", ""):
            sync_directory(store / name)
        for above in store.relative_to(self._root).parents:
            sync_directory(self._root / above)

    def sweep(self) -> None:
        """Delete what the lists of stores that have changed name no more, and did not in the batch before either."""
        for path, entries in self._stores.entries().items():
            for directory in ("overlay-images", "overlay", *_LINKS):
                for name in os.listdir(self._root / path / directory):
                    place = self._root / path / directory / name
                    if f"{directory}/{name}" in entries:
                        continue
                    if place.is_symlink():
                        place.unlink()
                    else:
                        delete_tree(place)


def _by_directory(files: Mapping[str, bytes]) -> Mapping[str, Mapping[str, bytes]]:
    """Return the files of the directories that belong to one layer or one image."""
    found: dict[str, dict[str, bytes]] = {}
    for file, content in files.items():
        if file not in _ALL_LISTS:
            found.setdefault(os.path.dirname(file), {})[file] = content
    return found


def _put_directory(place: Path, files: Mapping[str, bytes], links: Mapping[str, str], mask: Deletions | None) -> None:
    """Put a directory in its place, all at once."""
    new = place.with_name(f"{_NEW}{place.name}")
    delete_tree(new)
    for file, content in files.items():
        _write(new / os.path.basename(file), content)
    for link, target in links.items():
        (new / os.path.basename(link)).symlink_to(target)
    if mask is not None:
        _make_mask(new / "diff", place.name, mask)
    sync_tree(new, entries=len(files))
    # What is there is of a transaction that was never published, or of before a list lost it, or DUCC's of the same.
    replace_directory(place, new)
    delete_tree(new)


def _target(path: str, file: str) -> str:
    """Return where the link to a list of the store at a path leads."""
    return "../" * (path.count("/") + 2) + f"{BATCHES}/{HEAD}/{LISTS_OF_STORES}/{path}/{file}"


def _is_file(place: Path) -> bool:
    """Tell whether there is a file, as DUCC has lists, and no link."""
    return place.is_file() and not place.is_symlink()


def _link(place: Path, target: str) -> None:
    """Put a link in its place, whatever is there."""
    if place.is_symlink() and os.readlink(place) == target:
        return
    if place.is_dir() and not place.is_symlink():
        delete_tree(place)
    else:
        place.unlink(missing_ok=True)
    place.symlink_to(target)


def _make_mask(place: Path, layer: str, deletions: Deletions) -> None:
    place.mkdir()
    fill_mask(
        place,
        layer=layer,
        whiteouts=deletions.whiteouts,
        opaque=deletions.opaque,
        attributes=(OPAQUE_XATTR, UNPRIVILEGED_OPAQUE_XATTR),
    )


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, content)
