"""One entry of a layer archive."""

from enum import Enum

__all__ = ["Entry", "Extents", "Kind"]

Extents = list[tuple[int, int]]
"""Offset and length of each piece of data of a sparse file, in bytes, in order; the rest is holes."""


class Kind(Enum):
    """Types of entries that a layer can hold."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    LINK = "hard link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"


class Entry:
    """One entry, its numbers checked; the names are as the archive has them."""

    __slots__ = (
        "extents",
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "size",
        "stored",
        "uid",
        "xattrs",
    )

    name: bytes
    kind: Kind
    mode: int
    """Permissions, setuid, setgid and sticky bit."""
    uid: int
    """Owner; -1 leaves it as it is."""
    gid: int
    """Group; -1 leaves it as it is."""
    mtime: int
    """Nanoseconds since the epoch."""
    size: int
    """Size of the file, in bytes; 0 for everything else."""
    stored: int
    """Bytes of data in the stream, without padding."""
    extents: Extents | None
    """Where the data belong in a sparse file."""
    link: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes]
