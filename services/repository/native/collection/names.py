"""Names of objects, packed into a few bytes: a repository may have tens of millions."""

import re
from typing import Final, NamedTuple

from services.repository.native.records import ContentHash, HashAlgorithm, ObjectKind

__all__ = ["ObjectName", "pack"]

_PATH: Final = re.compile(r"data/([0-9a-f]{2})/([0-9a-f]{38}(?:-rmd160|-shake128)?)([CHXMP]?)")


class ObjectName(NamedTuple):
    """What names one object."""

    hash: ContentHash
    kind: ObjectKind

    @classmethod
    def of_path(cls, path: str) -> "ObjectName | None":
        """Read a path below the repository's root; None if no object has such a one."""
        match = _PATH.fullmatch(path)
        return None if match is None else cls(ContentHash.parse(match[1] + match[2]), ObjectKind(match[3]))

    @property
    def packed(self) -> bytes:
        """The same in a few bytes."""
        return pack(self.hash.digest, self.kind, self.hash.algorithm)


def pack(digest: bytes, kind: ObjectKind, algorithm: HashAlgorithm) -> bytes:
    """Name an object in a few bytes; what differs most comes first, so that comparing is quick."""
    return digest + bytes((algorithm.number,)) + kind.encode()
