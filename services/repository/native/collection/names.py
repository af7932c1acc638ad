"""Names of objects, packed into a few bytes: a repository may have tens of millions."""

import re
from typing import Final, NamedTuple

from services.repository.native.records import DIGEST_SIZE, ContentHash, HashAlgorithm, ObjectKind

__all__ = ["ObjectName", "pack"]

_PATH: Final = re.compile(r"data/([0-9a-f]{2})/([0-9a-f]{38}(?:-rmd160|-shake128)?)([CHXMP]?)")

_ALGORITHMS: Final = {algorithm.number: algorithm for algorithm in HashAlgorithm}


class ObjectName(NamedTuple):
    """What names one object."""

    hash: ContentHash
    kind: ObjectKind

    @classmethod
    def of_path(cls, path: str) -> "ObjectName | None":
        """Read a path below the repository's root; None if no object has such a one."""
        match = _PATH.fullmatch(path)
        return None if match is None else cls(ContentHash.parse(match[1] + match[2]), ObjectKind(match[3]))

    @classmethod
    def unpack(cls, packed: bytes) -> "ObjectName":
        """Read what `pack` has made."""
        digest, number, kind = packed[:DIGEST_SIZE], packed[DIGEST_SIZE], packed[DIGEST_SIZE + 1 :]
        return cls(ContentHash(digest, _ALGORITHMS[number]), ObjectKind(kind.decode()))

    @property
    def path(self) -> str:
        """Where it is below the repository's root."""
        return self.hash.path(self.kind)

    @property
    def packed(self) -> bytes:
        """The same in a few bytes."""
        return pack(self.hash.digest, self.kind, self.hash.algorithm)


def pack(digest: bytes, kind: ObjectKind, algorithm: HashAlgorithm) -> bytes:
    """Name an object in a few bytes; what differs most comes first, so that comparing is quick."""
    return digest + bytes((algorithm.number,)) + kind.encode()
