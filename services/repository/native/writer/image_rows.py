"""The images of a repository: their documents are small files in directories below `.metadata`.

`.metadata` is a catalog of its own, since clients that run containers never look into it. Each publish writes anew
those catalogs that it changes; so where one has grown, directories in it get catalogs of their own: registries first,
then what is below them. In a repository that another program has made, whatever catalog has the directories is changed.
"""

import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from services.common.image_name import METADATA_DIRECTORY, ImageName
from services.common.layout import CATALOG_MARKER
from services.repository.errors import ImageAdditionError
from services.repository.images import MULTIARCH_DIRECTORY, ImageDocuments, image_of_directory, is_platform
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.writer.file_entries import Child, children, put_file, remove_file
from services.repository.native.writer.open_catalogs import OpenCatalog, OpenCatalogs
from services.repository.native.writer.rows import file_row
from services.repository.native.writer.settling import give_catalog, split_grown
from services.repository.native.writer.small_files import read_small_file
from services.repository.native.writer.small_objects import SmallObjects
from services.repository.native.writer.tree_rows import TreeRows

__all__ = ["ImageRows"]

_METADATA: Final = b"/" + METADATA_DIRECTORY.encode()
_MODE: Final = 0o644
_LARGEST: Final = 4000
"""Entries that a catalog of documents should have at most: some 600 KB that a publish writes anew."""
_WORTH: Final = 500
"""Fewest entries that get a catalog of their own."""


class ImageRows:
    """The images of one revision, and what is to be changed of them; blocking.

    Parameters
    ----------
    catalogs
        The catalogs of the revision.
    objects
        Reads documents.
    """

    def __init__(self, catalogs: OpenCatalogs, objects: SmallObjects) -> None:
        self._catalogs = catalogs
        self._rows = TreeRows(catalogs)
        self._objects = objects
        self._changed = False

    def read(self, name: ImageName) -> Mapping[str, bytes] | None:
        """Return the documents of an image by their paths below `.metadata`; None if there is no such image.

        Raises
        ------
        NativeError
            One of them cannot be read.
        """
        files = {
            f"{directory}/{child.name.decode()}": self._content(_place(directory), child)
            for directory in self._directories(name)
            for child in self._files(_place(directory))
        }
        return files or None

    def names(self) -> Sequence[ImageName]:
        """List the images, in the order of their names."""
        return sorted(self._below(_METADATA, ""))

    def check(self, documents: ImageDocuments) -> None:
        """Make sure that the documents of an image can be put in their place.

        Raises
        ------
        ImageAdditionError
            Something else is there.
        """
        for directory in {*self._directories(documents.name), *documents.directories}:
            self._check_place(_place(directory))

    def put(self, documents: ImageDocuments) -> None:
        """Put the documents of an image in the place of those that are there.

        Raises
        ------
        ImageAdditionError
            Something else is in their place; nothing has been changed.
        """
        self.check(documents)
        for directory in self._directories(documents.name):
            if directory not in documents.directories:
                self._remove(directory)
        for directory in documents.directories:
            place = _place(directory)
            opened = self._make(place)
            new = {path.rpartition("/")[2].encode() for path in documents.files if path.startswith(f"{directory}/")}
            self._remove_files(opened, place, [child for child in self._files(place) if child.name not in new])
        for path, content in documents.files.items():
            opened = self._catalogs.above(_place(path))
            row = file_row(_place(path), mode=_MODE, name=self._catalogs.put(content), size=len(content))
            put_file(opened.catalog, row)
            opened.changed = True
        self._changed = True

    def remove(self, name: ImageName) -> None:
        """Take an image out, if it is there.

        Raises
        ------
        ImageAdditionError
            Something that is none of its documents is in its directories; nothing has been changed.
        """
        directories = self._directories(name)
        for directory in directories:
            self._check_place(_place(directory))
        for directory in directories:
            self._remove(directory)

    def settle(self) -> None:
        """Split the catalogs that have grown too large."""
        if not self._changed:
            return
        give_catalog(self._catalogs, _METADATA, worth=_WORTH)
        split_grown(self._catalogs, _METADATA, largest=_LARGEST, worth=_WORTH)

    def _below(self, path: bytes, directory: str) -> Iterator[ImageName]:
        for child in children(self._catalogs.at(path).catalog, path):
            if not stat.S_ISDIR(child.mode) or (not directory and child.name == MULTIARCH_DIRECTORY.encode()):
                continue
            try:
                inner = f"{directory}/{child.name.decode()}" if directory else child.name.decode()
            except UnicodeDecodeError:
                continue
            name = image_of_directory(inner)
            if name is None:
                yield from self._below(path + b"/" + child.name, inner)
            elif self._files(_place(inner)):
                yield name

    def _directories(self, name: ImageName) -> list[str]:
        """Return the directories that an image has, relative to `.metadata`."""
        platforms = children(self._catalogs.at(_MULTIARCH).catalog, _MULTIARCH)
        names = [child.name.decode(errors="replace") for child in platforms if stat.S_ISDIR(child.mode)]
        places = [name.path, *(f"{MULTIARCH_DIRECTORY}/{each}/{name.path}" for each in names if is_platform(each))]
        return [place for place in places if self._catalogs.above(_place(place)).catalog.holds(_place(place))]

    def _files(self, place: bytes) -> list[Child]:
        """Return the files in a directory, but for the mark of a catalog that begins there."""
        return [
            child
            for child in children(self._catalogs.at(place).catalog, place)
            if stat.S_ISREG(child.mode) and child.name != CATALOG_MARKER.encode()
        ]

    def _content(self, place: bytes, child: Child) -> bytes:
        return read_small_file(self._objects, self._catalogs.at(place).catalog, place + b"/" + child.name, child)

    def _check_place(self, place: bytes) -> None:
        """Make sure that a directory is there, with nothing in it but files, or can be made."""
        parts = place.split(b"/")
        for depth in range(2, len(parts) + 1):
            path = b"/".join(parts[:depth])
            try:
                there = self._catalogs.above(path).catalog.directory(path)
            except BrokenRepositoryError as error:
                raise ImageAdditionError(f"{error}, and not this suite's: remove it") from error
            if there is None:
                return
        for child in children(self._catalogs.at(place).catalog, place):
            if not stat.S_ISREG(child.mode) or child.links >> 32:
                raise ImageAdditionError(
                    f"{(place + b'/' + child.name).decode(errors='backslashreplace')} is no document of an image, and "
                    "not this suite's: remove it"
                )

    def _make(self, place: bytes) -> OpenCatalog:
        """Make a directory and those above it, where they are missing; return the catalog that has its files."""
        if self._rows.mode(_METADATA) is None:
            self._rows.make_catalog(_METADATA)
        self._rows.make_directory(place)
        return self._catalogs.at(place)

    def _remove(self, directory: str) -> None:
        """Remove a directory of documents, and those above it that have nothing else in them."""
        path = _place(directory)
        self._remove_files(self._catalogs.at(path), path, self._files(path))
        self._rows.prune(path, top=_METADATA)

    @staticmethod
    def _remove_files(opened: OpenCatalog, place: bytes, files: Sequence[Child]) -> None:
        for child in files:
            remove_file(opened.catalog, place + b"/" + child.name)
            opened.changed = opened.has_gaps = True


_MULTIARCH: Final = _METADATA + b"/" + MULTIARCH_DIRECTORY.encode()


def _place(path: str) -> bytes:
    return _METADATA + b"/" + path.encode()
