"""Definitions of the CVMFS repository format (CernVM-FS 2.12) that reader and writer share: no behaviour of either.

Content hashes name objects. Unlike the suite's `Digest`, which is the SHA-256 of an archive, a content hash is taken of
an object's *stored* bytes, is 20 bytes long in each of its algorithms, and its text names the algorithm by a suffix.
"""

import hashlib
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag, StrEnum
from functools import partial
from typing import Final, Self

from services.common.errors import InvalidValueError

__all__ = [
    "CATALOG_SCHEMA",
    "CATALOG_SCHEMA_REVISION",
    "CATALOG_SCHEMA_VERSION",
    "COUNTERS",
    "COUNTER_NAMES",
    "DIGEST_SIZE",
    "HASH_SHIFT",
    "HISTORY_SCHEMA",
    "HISTORY_SCHEMA_REVISION",
    "HISTORY_SCHEMA_VERSION",
    "MANIFEST",
    "MAX_XATTRS",
    "MAX_XATTR_SIZE",
    "REFLOG",
    "REFLOG_SCHEMA",
    "REFLOG_SCHEMA_REVISION",
    "REFLOG_SCHEMA_VERSION",
    "REPLICA_MARK",
    "REPUBLISHED",
    "ROOT_PATH_HASH",
    "SNAPSHOT_MARK",
    "TRANSACTION_DIRECTORY",
    "WAITING_REFLOG",
    "WHITELIST",
    "Compression",
    "ContentHash",
    "EntryFlag",
    "HashAlgorithm",
    "ObjectKind",
    "RefKind",
    "object_path",
    "path_hash",
]

MANIFEST: Final = ".cvmfspublished"
"""The signed manifest, which makes a revision visible."""
WHITELIST: Final = ".cvmfswhitelist"
"""The signed list of certificates that may sign manifests."""
REFLOG: Final = ".cvmfsreflog"
"""The reference log, an SQLite file that is stored as it is."""
WAITING_REFLOG: Final = ".cvmfs_thin_reflog"
"""The next reference log, while this suite replaces the manifest; not of CVMFS's format."""
REPUBLISHED: Final = ".cvmfs_thin_republished.json"
"""Which layers are to be published anew; not of CVMFS's format."""
REPLICA_MARK: Final = ".cvmfs_master_replica"
"""A file whose presence allows replication."""
SNAPSHOT_MARK: Final = ".cvmfs_last_snapshot"
"""A file that a stratum 1 has in its copy of a repository."""
TRANSACTION_DIRECTORY: Final = "data/txn"
"""Directory for what is not an object yet; checkers pass it over."""

DIGEST_SIZE: Final = 20
"""Size of every content hash, in bytes."""


class HashAlgorithm(Enum):
    """The algorithms of content hashes: suffix of the text form, number in an entry's flags."""

    SHA1 = ("sha1", "", 0)
    RMD160 = ("rmd160", "-rmd160", 1)
    SHAKE128 = ("shake128", "-shake128", 2)

    def __init__(self, label: str, suffix: str, number: int) -> None:
        self.label = label
        self.suffix = suffix
        self.number = number

    def digest(self, *pieces: bytes | bytearray | memoryview) -> bytes:
        """Return the raw digest of a stored object, given as one or more pieces."""
        hasher = self.hasher()
        for piece in pieces:
            hasher.update(piece)
        return self.finish(hasher)

    def hasher(self) -> "hashlib._Hash":
        """Begin a hash of something long."""
        return _HASHERS[self.label]()

    def finish(self, hasher: "hashlib._Hash") -> bytes:
        """Return the raw digest of what a hasher has been given."""
        if self is HashAlgorithm.SHAKE128:
            return hasher.digest(DIGEST_SIZE)  # type: ignore[call-arg]  # an extendable-output hash takes a length
        return hasher.digest()


_HASHERS: Final[dict[str, Callable[[], "hashlib._Hash"]]] = {
    "sha1": partial(hashlib.sha1, usedforsecurity=False),
    "rmd160": partial(hashlib.new, "ripemd160", usedforsecurity=False),
    "shake128": partial(hashlib.shake_128, usedforsecurity=False),
}


class ObjectKind(StrEnum):
    """Kinds of objects, as the letter that ends an object's name; it is no part of the hash."""

    FILE = ""
    CHUNK = "P"
    CATALOG = "C"
    HISTORY = "H"
    CERTIFICATE = "X"
    META = "M"


_TEXT: Final = re.compile(r"([0-9a-f]{40})(-rmd160|-shake128)?")
_BY_SUFFIX: Final = {algorithm.suffix: algorithm for algorithm in HashAlgorithm}


@dataclass(frozen=True, slots=True)
class ContentHash:
    """The name of an object: the hash of its stored bytes, with its algorithm."""

    digest: bytes
    """The 20 raw bytes."""
    algorithm: HashAlgorithm = HashAlgorithm.SHA1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form, such as `e8ec…` or `e8ec…-shake128`; no type letter.

        Raises
        ------
        InvalidValueError
            The text is anything else.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InvalidValueError(f"not a content hash of 40 lower-case hex digits: {text[:80]!r}")
        return cls(bytes.fromhex(match[1]), _BY_SUFFIX[match[2] or ""])

    @classmethod
    def of(cls, stored: bytes | bytearray | memoryview, algorithm: HashAlgorithm = HashAlgorithm.SHA1) -> Self:
        """Return the name of an object with these stored bytes."""
        return cls(algorithm.digest(stored), algorithm)

    @classmethod
    def null(cls, algorithm: HashAlgorithm = HashAlgorithm.SHA1) -> Self:
        """Return the hash that stands for no object."""
        return cls(bytes(DIGEST_SIZE), algorithm)

    @property
    def is_null(self) -> bool:
        """Whether it stands for no object."""
        return not any(self.digest)

    def path(self, kind: ObjectKind) -> str:
        """Return where the object is, relative to the root of the repository."""
        return object_path(self.digest, kind, self.algorithm)

    def __str__(self) -> str:
        return self.digest.hex() + self.algorithm.suffix


def object_path(digest: bytes, kind: ObjectKind, algorithm: HashAlgorithm = HashAlgorithm.SHA1) -> str:
    """Return where an object is, relative to the root of the repository."""
    text = digest.hex()
    return f"data/{text[:2]}/{text[2:]}{algorithm.suffix}{kind}"


_PATH_HASH: Final = struct.Struct("<qq")


def path_hash(path: bytes) -> tuple[int, int]:
    """Return the two columns that name a path: the MD5 of the absolute path, as little-endian signed numbers.

    Parameters
    ----------
    path
        With a leading and without a trailing slash; the root is the empty path.
    """
    first, second = _PATH_HASH.unpack(hashlib.md5(path, usedforsecurity=False).digest())
    return first, second


ROOT_PATH_HASH: Final = hashlib.md5(b"", usedforsecurity=False).hexdigest()
"""What the field R of every manifest says."""


class EntryFlag(IntFlag):
    """Bits of an entry's flags."""

    DIRECTORY = 1
    NESTED_MOUNTPOINT = 2
    """The directory's row in the parent catalog."""
    FILE = 4
    """Everything that is no directory."""
    SYMLINK = 8
    SPECIAL = 16
    """Fifo, socket, device."""
    NESTED_ROOT = 32
    """The directory's row in its own catalog."""
    CHUNKED = 64
    EXTERNAL = 128
    BIND_MOUNTPOINT = 0x4000
    HIDDEN = 0x8000
    """Found by name, not listed."""
    DIRECT_IO = 0x10000


HASH_SHIFT: Final = 8
"""Position in an entry's flags of the three bits that hold the number of the hash algorithm."""


class Compression(IntEnum):
    """How a file's objects are stored: bits 11 to 13 of an entry's flags."""

    ZLIB = 0
    NONE = 1


MAX_XATTR_SIZE: Final = 255
"""Most bytes of an attribute's name, and of its value."""
MAX_XATTRS: Final = 255
"""Most attributes of an entry."""


class RefKind(IntEnum):
    """What an entry of the reference log is."""

    CATALOG = 0
    CERTIFICATE = 1
    HISTORY = 2
    META = 3


COUNTER_NAMES: Final = (
    "regular",
    "symlink",
    "special",
    "dir",
    "nested",
    "chunked",
    "chunks",
    "file_size",
    "chunked_size",
    "xattr",
    "external",
    "external_file_size",
)
"""What a catalog counts, of itself (`self_`) and of the catalogs below it (`subtree_`)."""

COUNTERS: Final = tuple(f"{prefix}_{name}" for prefix in ("self", "subtree") for name in COUNTER_NAMES)
"""The 24 rows that the statistics of every catalog have."""

CATALOG_SCHEMA_VERSION: Final = "2.5"
CATALOG_SCHEMA_REVISION: Final = "7"
CATALOG_SCHEMA: Final = """
CREATE TABLE catalog
(md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, hardlinks INTEGER, hash BLOB, size INTEGER,
 mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER, name TEXT, symlink TEXT, uid INTEGER, gid INTEGER,
 xattr BLOB, CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
CREATE TABLE chunks
(md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,
 CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),
 FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2));
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));
CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));
CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter));
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
"""
"""Of file catalogs; the root entry's row must be the first one that is inserted."""

HISTORY_SCHEMA_VERSION: Final = "1.0"
HISTORY_SCHEMA_REVISION: Final = "3"
HISTORY_SCHEMA: Final = """
CREATE TABLE branches
(branch TEXT, parent TEXT, initial_revision INTEGER, CONSTRAINT pk_branch PRIMARY KEY (branch),
 FOREIGN KEY (parent) REFERENCES branches (branch),
 CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)));
CREATE TABLE tags
(name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER, description TEXT, size INTEGER,
 branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name), FOREIGN KEY (branch) REFERENCES branches (branch));
CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash));
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
"""
"""Of tag databases."""

REFLOG_SCHEMA_VERSION: Final = "1.0"
REFLOG_SCHEMA_REVISION: Final = "0"
REFLOG_SCHEMA: Final = """
CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash));
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
"""
"""Of the reference log."""
