"""Compresses objects into the one form that a repository's objects have, and names them."""

import zlib
from typing import Final

from isal import isal_zlib

from services.publisher.repository.native.errors import BrokenRepositoryError
from services.publisher.repository.native.format import RepositoryFormat
from services.publisher.repository.native.records import ContentHash
from services.publisher.repository.native.storage.interface import Buffer

__all__ = ["Compressor"]

_IGZIP_LEVEL: Final = 1
_ZLIB_LEVEL: Final = 6
"""What the stock tools write; another level would give other names."""


class Compressor:
    """The compressor and the hash algorithm of one repository."""

    def __init__(self, chosen: RepositoryFormat) -> None:
        self.algorithm = chosen.algorithm
        self._compress = _zlib if chosen.compressor == "zlib" else _igzip

    def compress(self, content: Buffer) -> bytes:
        """Return the stored form of some content."""
        return self._compress(content)

    def name(self, stored: Buffer) -> ContentHash:
        """Return the name of an object with these stored bytes."""
        return ContentHash.of(stored, self.algorithm)

    def expand(self, stored: bytes) -> bytes:
        """Return the content of an object that fits memory.

        Raises
        ------
        BrokenRepositoryError
            The stored bytes are no zlib stream.
        """
        try:
            return zlib.decompress(stored)
        except zlib.error as error:
            raise BrokenRepositoryError(f"an object is damaged: {error}") from error


def _zlib(content: Buffer) -> bytes:
    return zlib.compress(content, _ZLIB_LEVEL)


def _igzip(content: Buffer) -> bytes:
    return isal_zlib.compress(content, _IGZIP_LEVEL)
