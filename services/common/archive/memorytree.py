"""A layer's tree that exists in memory only, by names and sizes."""

from services.common.archive.entry import Entry
from services.common.archive.nametree import NameTree
from services.common.archive.reader import TarReader

__all__ = ["MemoryTree"]


class MemoryTree:
    """What `DiskTree` would make, without making it."""

    def __init__(self) -> None:
        self._names = NameTree()

    @property
    def size(self) -> int:
        """Sum of the sizes of files and symbolic links, hard links counted once, in bytes."""
        return self._names.size

    def directory(self, path: bytes, entry: Entry) -> None:  # noqa: ARG002 - attributes are not kept
        """Make a directory unless it exists."""
        self._names.directory(path)

    def file(self, path: bytes, entry: Entry, data: TarReader) -> None:  # noqa: ARG002 - data are passed over
        """Make a file in place of what is there."""
        self._names.add(path, entry.size)

    def symlink(self, path: bytes, entry: Entry) -> None:
        """Make a leaf in place of what is there."""
        self._names.add(path, len(entry.link))

    def node(self, path: bytes, entry: Entry) -> None:  # noqa: ARG002 - attributes are not kept
        """Make a leaf in place of what is there."""
        self._names.add(path, 0)

    def link(self, path: bytes, target: bytes) -> bool:
        """Make a hard link in place of what is there; return False where the target is absent."""
        return self._names.link(path, target)

    def vacate(self, path: bytes) -> None:
        """Remove what is there, if anything, but make its parents."""
        self._names.vacate(path)

    def imply(self, path: bytes) -> bytes:
        """Make a directory, which may be the root, unless it exists; return its path."""
        self._names.imply(path)
        return path

    def is_directory(self, path: bytes) -> bool | None:
        """Tell whether a path is a directory; None where nothing is there."""
        return self._names.is_directory(path)

    def delete(self, path: bytes) -> None:
        """Leave the tree as it is."""

    def make_opaque(self, path: bytes) -> None:
        """Leave the tree as it is."""

    def finish(self) -> None:
        """Leave the tree as it is."""
