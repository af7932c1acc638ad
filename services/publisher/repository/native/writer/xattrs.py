"""Extended attributes as catalogs hold them: version 1, which every client reads."""

from collections.abc import Mapping
from typing import Final

from services.common.archive.notes import Notes, show
from services.publisher.repository.native.records import MAX_XATTR_SIZE, MAX_XATTRS

__all__ = ["pack_xattrs"]

_VERSION: Final = 1


def pack_xattrs(xattrs: Mapping[bytes, bytes], *, path: bytes, notes: Notes) -> bytes | None:
    """Return the packed attributes, or nothing where there are none.

    Parameters
    ----------
    xattrs
        In the order in which they are to be kept if there are too many.
    path
        Whose attributes they are.
    notes
        Told which cannot be kept: a name or value of more than 255 bytes, the 256th and later ones.
    """
    packed: list[bytes] = []
    for name, value in xattrs.items():
        if len(name) > MAX_XATTR_SIZE or len(value) > MAX_XATTR_SIZE:
            notes.add(
                f"{show(path)}: the attribute {show(name)} has a value of {len(value)} bytes, CVMFS holds "
                f"{MAX_XATTR_SIZE}; left out"
            )
        elif len(packed) == MAX_XATTRS:
            notes.add(f"{show(path)}: more attributes than the {MAX_XATTRS} that CVMFS holds, {show(name)} left out")
        else:
            packed.append(bytes((len(name), len(value))) + name + value)
    return bytes((_VERSION, len(packed))) + b"".join(sorted(packed)) if packed else None
