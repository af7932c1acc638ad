"""What the index of content is to learn: which object holds some content, known by a hash."""

import hashlib
import struct
from collections.abc import Iterator
from typing import Final

from services.repository.native.records import DIGEST_SIZE, ObjectKind
from services.repository.native.storage.interface import Buffer

__all__ = ["CONTENT_KEY_SIZE", "NewRows", "content_key"]

CONTENT_KEY_SIZE: Final = 32
"""Size of the hash that content is found by, in bytes."""

_ROW: Final = struct.Struct(f"{CONTENT_KEY_SIZE}sc{DIGEST_SIZE}s")
_NO_LETTER: Final = b" "
_SORTED: Final = 50_000 * _ROW.size
"""What is brought into order at a time, in bytes: some 5 MB of memory."""


def content_key(content: Buffer) -> bytes:
    """Return the hash that content is found by."""
    return hashlib.sha256(content).digest()


class NewRows:
    """Rows that wait until what they name is on the disk; 53 bytes each, as a layer may have a million."""

    __slots__ = ("_packed",)

    def __init__(self) -> None:
        self._packed = bytearray()

    def add(self, key: bytes, kind: ObjectKind, digest: bytes) -> None:
        """Add the object that holds some content.

        Parameters
        ----------
        key
            The hash of the content.
        kind
            Whole file or chunk: of the same content these are two objects.
        digest
            The object's content hash, in the repository's own algorithm.
        """
        self._packed += _ROW.pack(key, kind.encode() or _NO_LETTER, digest)

    def __iter__(self) -> Iterator[tuple[bytes, str, bytes]]:
        """Give the rows, many at a time in the order of their keys, so that the index is written page by page."""
        for start in range(0, len(self._packed), _SORTED):
            some = bytes(self._packed[start : start + _SORTED])
            for row in sorted(some[at : at + _ROW.size] for at in range(0, len(some), _ROW.size)):
                key, kind, digest = _ROW.unpack(row)
                yield key, kind.strip(_NO_LETTER).decode(), digest
