"""The images of a batch: an index that is replaced as a whole, but for the parts of it that are as they were.

::

    .metadata/NAME                            -> .batches/.head/images/XX/KEY/NAME
    .batches/.batch-REVISION/images/XX        -> .batches/.images/XX-REVISION          256 of them at most
    .batches/.images/XX-REVISION/KEY          -> .batches/.batch-REVISION/documents/KEY
    .batches/.batch-REVISION/documents/KEY/NAME/manifest.json

KEY is the SHA-256 of an image's name, XX are its first two digits. A batch writes the links of those XX that it
changes, a few hundred however many images there are; and with the index, all directories of an image change at once.
The names of flat images lead there as well (`public_names`).
"""

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.common.deletion import delete_tree
from services.common.digest import Digest
from services.common.durable import sync_directory, sync_tree, write_file
from services.common.image_name import METADATA_DIRECTORY, ImageName
from services.repository.directory.batches import BATCHES, HEAD
from services.repository.directory.public_names import (
    NAMES,
    alias_links,
    check_names,
    link_target,
    name_links,
    named_flats,
    places_in,
    write_names,
)
from services.repository.ducc import is_ducc_metadata
from services.repository.errors import ImageAdditionError
from services.repository.images import MULTIARCH_DIRECTORY, ImageDocuments, image_of_directory

__all__ = ["ImageIndex", "NewIndex", "staged_links"]

_INDEX: Final = "images"
_SHARDS: Final = ".images"
_DOCUMENTS: Final = "documents"


class ImageIndex:
    """What is published; blocking.

    Parameters
    ----------
    root
        Root of the repository.
    batches
        Directory of its batches.
    head
        The link to what is published.
    """

    def __init__(self, *, root: Path, batches: Path, head: Path) -> None:
        self.root = root
        self.shards = batches / _SHARDS
        self.current = head / _INDEX

    def read(self, name: ImageName) -> Mapping[str, bytes] | None:
        """Return the documents of an image that readers see, all of one version; None if they see none.

        What is in the index and has lost its public link is seen by nobody.
        """
        place = self.place(name)
        if place is None:
            return None
        seen = {
            f"{directory}/{path.name}": path.read_bytes()
            for directory in _directories(place)
            if self.owns(self.root / METADATA_DIRECTORY / directory)
            for path in _entries(place / directory)
            if path.is_file()
        }
        return seen or None

    def published(self, name: ImageName) -> ImageDocuments | None:
        """Return an image that has outputs; None if there is none of that name."""
        files = self.read(name)
        return None if files is None else ImageDocuments.published(name, files)

    def flats_of(self, name: ImageName) -> Collection[Digest]:
        """Return the configurations of the flat images that the name of an image leads to."""
        place = self.place(name)
        return frozenset() if place is None else named_flats(self.root, place, _shown(name))

    def place(self, name: ImageName) -> Path | None:
        """Return the directory of an image's documents, which stays the same when the image is replaced."""
        key = _key(name)
        return _resolved(self.current / key[:2] / key)

    def shard(self, digits: str) -> Path | None:
        """Return the directory that has the images whose keys begin with two digits."""
        return _resolved(self.current / digits)

    def names(self) -> Sequence[ImageName]:
        """List the images, in the order of their names."""
        metadata = self.root / METADATA_DIRECTORY
        found = []
        for directory, inner, _ in os.walk(metadata):
            if directory == str(metadata):
                inner[:] = [name for name in inner if name != MULTIARCH_DIRECTORY]
            for entry in inner:
                path = Path(directory, entry)
                name = image_of_directory(str(path.relative_to(metadata)))
                if name is not None and self.owns(path) and path.exists():
                    found.append(name)
        return sorted(found)

    def owns(self, link: Path) -> bool:
        """Tell whether what is at a path below `.metadata` is a link into the index."""
        directory = str(link.relative_to(self.root / METADATA_DIRECTORY))
        name = image_of_directory(directory)
        return name is not None and link.is_symlink() and os.readlink(link) == _target(name, directory)

    def sweep(self, kept: Sequence[str]) -> None:
        """Delete the parts of an index that has not been published.

        Parameters
        ----------
        kept
            What is published no more, but may still be read; relative to the root.
        """
        used = {os.path.basename(os.readlink(entry)) for entry in _entries(self.current)}
        used.update(os.path.basename(path) for path in kept)
        for shard in _entries(self.shards):
            if shard.name not in used:
                delete_tree(shard)


class NewIndex:
    """The images that one transaction changes; blocking.

    Parameters
    ----------
    index
        What is published.
    staging
        Directory of the transaction, which becomes that of the batch.
    """

    def __init__(self, index: ImageIndex, staging: Path) -> None:
        self._index = index
        self._staging = staging
        self._changes: dict[ImageName, ImageDocuments | None] = {}

    def put(self, documents: ImageDocuments) -> None:
        """Write the documents of an image where no reader looks.

        Raises
        ------
        ImageAdditionError
            Something that is not of this suite is in its place, or it cannot be written.
        """
        for directory in documents.directories:
            self._check_place(directory)
        check_names(self._index.root, documents, _shown(documents.name))
        place = self._staging / _DOCUMENTS / _key(documents.name)
        self._changes.pop(documents.name, None)
        try:
            delete_tree(place)
            for path, content in documents.files.items():
                file = place / path
                file.parent.mkdir(parents=True, exist_ok=True)
                write_file(file, content)
            write_names(place, documents)
        except OSError as error:
            with suppress(OSError):  # what stays is in no index, and goes with the batch
                delete_tree(place)
            raise ImageAdditionError(f"the documents of {documents.name} cannot be written: {error}") from error
        self._changes[documents.name] = documents

    def remove(self, name: ImageName) -> None:
        """Take an image out, if it is there."""
        self._changes[name] = None

    def _check_place(self, directory: str) -> None:
        link = self._index.root / METADATA_DIRECTORY / directory
        above = link.relative_to(self._index.root).parents
        for path in (self._index.root / parent for parent in above):
            if os.path.lexists(path) and not stat.S_ISDIR(path.lstat().st_mode):
                raise ImageAdditionError(f"{path} is no directory, and not this suite's: remove it")
        if os.path.lexists(link) and not (self._index.owns(link) or _is_duccs(link)):
            raise ImageAdditionError(f"{link} is there already, and is not this suite's: remove it")

    def links(self) -> Iterator[tuple[Path, str]]:
        """Give the links that are to be there when the batch is visible, and where they lead."""
        for name, documents in self._changes.items():
            for directory in documents.directories if documents else ():
                yield self._index.root / METADATA_DIRECTORY / directory, _target(name, directory)
            places = name_links(documents) if documents else ()
            for place in places:
                yield self._index.root / place, link_target(place, _shown(name))
            yield from alias_links(self._index.root, places)

    def dangling(self) -> Iterator[Path]:
        """Give the published links that lead nowhere when the batch is visible."""
        for name, documents in self._changes.items():
            place = self._index.place(name)
            kept = documents.directories if documents else ()
            for directory in _directories(place) if place else ():
                if directory not in kept:
                    yield self._index.root / METADATA_DIRECTORY / directory
            named = name_links(documents) if documents else ()
            gone = [public for public in (places_in(place) if place else ()) if public not in named]
            yield from (self._index.root / public for public in gone)
            yield from (link for link, _ in alias_links(self._index.root, gone))

    def superseded(self) -> Iterator[Path]:
        """Give the published directories that nobody reaches when the batch is visible."""
        found = [self._index.place(name) for name in self._changes]
        if self._changes:
            found += [self._index.shard(digits) for digits in self._shards()]
            found += [_resolved(self._index.current)]
        yield from filter(None, found)

    def write(self, revision: int) -> None:
        """Write the index of the batch, and bring it to the disk."""
        index = self._staging / _INDEX
        published = _resolved(self._index.current)
        if not self._changes:
            if published is not None:
                index.symlink_to(os.path.relpath(published, self._staging.resolve()))
            return
        index.mkdir()
        for entry in _entries(self._index.current):
            (index / entry.name).symlink_to(os.readlink(entry))
        for digits, names in self._shards().items():
            shard = self._index.shards / f"{digits}-{revision}"
            delete_tree(shard)
            shard.mkdir(parents=True)
            self._fill(shard, self._index.shard(digits), names, f"../../.batch-{revision}/{_DOCUMENTS}")
            (index / digits).unlink(missing_ok=True)
            (index / digits).symlink_to(f"../../{_SHARDS}/{shard.name}")
            sync_directory(shard)
        for directory in (index, self._index.shards):
            sync_directory(directory)
        documents = self._staging / _DOCUMENTS
        if documents.exists():
            sync_tree(documents, entries=sum(len(image.files) for image in self._changes.values() if image))

    def _fill(self, shard: Path, published: Path | None, names: Sequence[ImageName], documents: str) -> None:
        gone = {_key(name) for name in names}
        for entry in _entries(published) if published else ():
            if entry.name not in gone:
                (shard / entry.name).symlink_to(os.readlink(entry))
        for name in names:
            if self._changes[name] is not None:
                (shard / _key(name)).symlink_to(f"{documents}/{_key(name)}")

    def _shards(self) -> Mapping[str, Sequence[ImageName]]:
        shards: dict[str, list[ImageName]] = {}
        for name in self._changes:
            shards.setdefault(_key(name)[:2], []).append(name)
        return shards


def staged_links(batch: Path) -> Iterator[str]:
    """Give the links, relative to the repository's root, that lead to the documents in a batch."""
    for place in _entries(batch / _DOCUMENTS):
        for directory in _directories(place):
            yield f"{METADATA_DIRECTORY}/{directory}"
        yield from places_in(place)


def _is_duccs(directory: Path) -> bool:
    """Tell whether a directory is one of documents that DUCC has left."""
    return directory.is_dir() and not directory.is_symlink() and is_ducc_metadata(os.listdir(directory))


def _directories(place: Path) -> Iterator[str]:
    for directory, inner, files in os.walk(place):
        inner[:] = [name for name in inner if name != NAMES]
        if files:
            yield os.path.relpath(directory, place)


def _entries(directory: Path) -> Sequence[Path]:
    try:
        return [directory / name for name in os.listdir(directory)]
    except FileNotFoundError:
        return ()


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve(strict=True)
    except FileNotFoundError:
        return None


def _key(name: ImageName) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _target(name: ImageName, directory: str) -> str:
    """Return where the link of a directory of documents leads, from the directory that it is in."""
    up = "../" * (directory.count("/") + 1)
    return f"{up}{_shown(name)}/{directory}"


def _shown(name: ImageName) -> str:
    """Return the directory of an image's documents in the index that is visible, relative to the repository's root."""
    key = _key(name)
    return f"{BATCHES}/{HEAD}/{_INDEX}/{key[:2]}/{key}"
