"""How the objects are compressed that a stratum 1 does not copy as they are.

`cvmfs_server snapshot` copies every object byte by byte, but for two kinds: it reads the certificate and the meta
information, compresses what it has read anew, with zlib at its default level, and stores that under the names that the
manifest has. Only what was compressed in the same way has its name there as well; with any other certificate the
replica cannot be mounted. So these two are made with zlib, whatever compresses the rest.

The stock tools have a zlib of their own built in. What is assumed here is that Python's gives the same bytes, which the
versions of zlib itself all do; zlib-ng, which some systems have in its place, does not.
"""

import hashlib
import zlib
from functools import cache
from typing import Final

from services.repository.native.errors import NativeError
from services.repository.native.records import ContentHash, ObjectKind

__all__ = ["COMPRESSED_ANEW", "UnlikeZlibError", "compressed_anew", "is_copied_right", "is_zlib"]

COMPRESSED_ANEW: Final = (ObjectKind.CERTIFICATE, ObjectKind.META)
"""The kinds of objects that replication compresses anew."""

_LEVEL: Final = 6
"""zlib's default."""
_SPECIMEN: Final = b"".join(b"%d: %x\n" % (number, number**3 * 2654435761 % 4294967296) for number in range(400))
"""Long enough that another implementation compresses it differently, and so does zlib at another level."""
_SPECIMEN_SHA1: Final = "6734d1122861facbb35df3dfea4a15b89e15c2d6"
"""Of what zlib 1.2.8, as the stock tools have it, and zlib 1.3.1 make of it."""


class UnlikeZlibError(NativeError):
    """Python is linked to something that compresses otherwise than zlib does."""


def compressed_anew(content: bytes) -> bytes:
    """Return what replication makes of the content of a certificate or of meta information.

    Raises
    ------
    UnlikeZlibError
        This Python cannot make it.
    """
    if not is_zlib():
        raise UnlikeZlibError(
            f"the zlib of this Python (version {zlib.ZLIB_RUNTIME_VERSION}) compresses otherwise than zlib itself, so "
            "that no stratum 1 could copy what it makes: use a Python that is linked to zlib, as the images of this "
            "suite have it"
        )
    return zlib.compress(content, _LEVEL)


def is_copied_right(name: ContentHash, content: bytes) -> bool:
    """Tell whether what replication makes of the content of such an object has the object's name.

    Raises
    ------
    UnlikeZlibError
        This Python cannot tell.
    """
    return ContentHash.of(compressed_anew(content), name.algorithm) == name


@cache
def is_zlib() -> bool:
    """Tell whether this Python compresses as the stock tools do."""
    stored = zlib.compress(_SPECIMEN, _LEVEL)
    return hashlib.sha1(stored, usedforsecurity=False).hexdigest() == _SPECIMEN_SHA1
