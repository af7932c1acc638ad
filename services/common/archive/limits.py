"""How large a layer archive may be, in every respect in which it could be made absurd."""

from dataclasses import dataclass
from typing import Final

__all__ = ["ArchiveLimits"]

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Limits that are enforced while an archive streams; sizes in bytes.

    The defaults let real layers pass by a wide margin; each can be raised by a setting.
    """

    stream_size: int = 128 * _GIB
    """Size of the uncompressed tar stream."""
    tree_size: int = 128 * _GIB
    """Sum of the sizes of the layer's files, holes included: a small archive could else fill a repository."""
    ratio: int = 1000
    """Uncompressed size over compressed size, once `ratio_free_size` is passed."""
    ratio_free_size: int = 8 * _GIB
    """Uncompressed size up to which any ratio passes: a file of zeros compresses 30,000 times and is no attack."""
    entries: int = 2_000_000
    """Number of entries."""
    names_size: int = 256 * _MIB
    """Sum of the lengths of the entries' names and targets: what of an archive may have to be remembered."""
    path_length: int = 4095
    """Length of a path, as PATH_MAX leaves it."""
    path_depth: int = 256
    """Number of a path's components."""
    link_length: int = 4095
    """Length of a symbolic link's target."""
    header_size: int = _MIB
    """Size of one extended header (PAX records, GNU long name)."""
    xattr_count: int = 256
    """Number of extended attributes of one entry."""
    xattr_name_length: int = 255
    """Length of an attribute's name, as the kernel limits it."""
    xattr_value_size: int = 64 << 10
    """Size of an attribute's value, as the kernel limits it."""
    sparse_extents: int = 262_144
    """Number of data extents of one sparse file."""
    zstd_window_log: int = 26
    """Binary logarithm of the largest zstd window: the memory that decompression may take (64 MiB)."""
    seconds: float = 6 * 3600
    """Time that reading one archive may take."""
