"""Files of a repository that are read whole: documents of images, sidecars, lists."""

from typing import Final

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import (
    HASH_SHIFT,
    Compression,
    ContentHash,
    EntryFlag,
    HashAlgorithm,
    ObjectKind,
)
from services.repository.native.writer.catalog import Catalog
from services.repository.native.writer.file_entries import Child, chunks
from services.repository.native.writer.small_objects import SmallObjects

__all__ = ["read_small_file"]

_COMPRESSION: Final = 0b111 << 11
"""Bits of an entry's flags that say how its objects are stored."""


def read_small_file(objects: SmallObjects, catalog: Catalog, path: bytes, file: Child) -> bytes:
    """Read the content of a file.

    Parameters
    ----------
    objects
        Reads objects.
    catalog, path
        Where the file is.
    file
        What the catalog says of it.

    Raises
    ------
    BrokenRepositoryError
        It is not stored as this suite stores such files.
    NativeError
        It cannot be read.
    """
    shown = path.decode(errors="backslashreplace")
    if file.flags & EntryFlag.EXTERNAL or file.flags & _COMPRESSION != Compression.ZLIB:
        raise BrokenRepositoryError(f"{shown} is not stored as this suite stores documents: it cannot be read")
    kind, digests = ObjectKind.FILE, [file.digest or b""]
    if file.flags & EntryFlag.CHUNKED:
        kind, digests = ObjectKind.CHUNK, chunks(catalog, path)
    number = file.flags >> HASH_SHIFT & 0b111
    algorithm = next((known for known in HashAlgorithm if known.number == number), None)
    if algorithm is None:
        raise BrokenRepositoryError(f"{shown} has a hash of an unknown algorithm")
    return b"".join(objects.get(ContentHash(digest, algorithm), kind) for digest in digests)
