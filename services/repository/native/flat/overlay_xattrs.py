"""The attributes by which overlayfs keeps what a layer says of those below it, in the packed form of catalogs.

They are `trusted.overlay.*`, and `user.overlay.*` where a mount has the option `userxattr`; an overlay shows neither.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.writer.rows import Row

__all__ = ["is_opaque", "without_overlay"]

_PREFIXES: Final = (b"trusted.overlay.", b"user.overlay.")
_OPAQUE: Final = tuple(prefix + b"opaque" for prefix in _PREFIXES)
_VALUE: Final = b"y"
_VERSION: Final = b"\1"
_HEADER: Final = 2
"""Bytes of the packed form that say its version and the number of attributes, and those that say two lengths."""


def is_opaque(row: Row) -> bool:
    """Tell whether a directory hides what lower layers hold there."""
    packed = row[15]
    return packed is not None and b".overlay.opaque" in packed and _says_opaque(packed)


@lru_cache(maxsize=64)
def without_overlay(packed: bytes) -> bytes | None:
    """Return attributes without those of overlayfs; None where there are no others.

    Raises
    ------
    BrokenRepositoryError
        They are not in the packed form, version 1.
    """
    kept = [
        bytes((len(name), len(value))) + name + value
        for name, value in _unpacked(packed)
        if not name.startswith(_PREFIXES)
    ]
    return _VERSION + bytes((len(kept),)) + b"".join(kept) if kept else None


@lru_cache(maxsize=64)
def _says_opaque(packed: bytes) -> bool:
    return any(name in _OPAQUE and value == _VALUE for name, value in _unpacked(packed))


def _unpacked(packed: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = _HEADER
    try:
        for _ in range(packed[1]):
            name_end = position + _HEADER + packed[position]
            end = name_end + packed[position + 1]
            yield packed[position + _HEADER : name_end], packed[name_end:end]
            position = end
    except IndexError:
        position = -1
    if packed[:1] != _VERSION or position != len(packed):
        raise BrokenRepositoryError(f"extended attributes of a layer are not in the form of catalogs: {packed[:80]!r}")
