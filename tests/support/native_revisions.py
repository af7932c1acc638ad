"""Publishes small revisions whose every object is known, without the writer: for tests of what comes after it."""

import hashlib
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from services.repository.native.access import RepositoryAccess
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.records import (
    CATALOG_SCHEMA,
    COUNTERS,
    ContentHash,
    EntryFlag,
    ObjectKind,
    path_hash,
)
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.head import Root
from services.repository.native.writer.manifest import Manifest
from tests.repository.native.conftest import NAME

__all__ = ["Clock", "Revisions", "content"]

Directory = Mapping[str, bytes]
"""Names and contents of files."""

_CHUNK: Final = 1000
"""Files larger than this are cut, in bytes."""


class Clock:
    """A clock that a test sets, in seconds since the epoch."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Revisions:
    """A repository to which revisions are published.

    Parameters
    ----------
    storage
        Where it is made.
    """

    def __init__(self, storage: Storage, keys: KeyFiles, clock: Clock) -> None:
        self.clock = clock
        create_repository(name=NAME, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={}, clock=clock)
        self.access = RepositoryAccess.open(name=NAME, storage=storage, keys=keys, clock=clock)

    @classmethod
    def in_directory(cls, root: Path, keys: KeyFiles, clock: Clock) -> "Revisions":
        """Make one in a directory."""
        return cls(DirectoryStorage(root), keys, clock)

    def publish(self, directories: Mapping[str, Directory]) -> Manifest:
        """Publish a revision that has these directories, each of which is a nested catalog."""
        with self.access.storage.using(patience=0), self.access.changing() as previous:
            now = self.access.head.next_time(previous)
            nested = {f"/{name}": self._catalog(f"/{name}", files, {}, {}) for name, files in directories.items()}
            properties = {
                "revision": str(previous.revision + 1),
                "last_modified": str(now),
                "previous_revision": str(previous.root),
                "TTL": "240",
            }
            catalog, size = self._catalog("", {}, nested, properties)
            root = Root(catalog=catalog, size=size, revision=previous.revision + 1, published=now)
            return self.access.head.publish(root, previous=previous)

    def _catalog(
        self,
        path: str,
        files: Directory,
        nested: Mapping[str, tuple[ContentHash, int]],
        properties: Mapping[str, str],
    ) -> tuple[ContentHash, int]:
        properties = {"schema": "2.5", "schema_revision": "7", **properties}
        if path:
            properties["root_prefix"] = path
        counters = dict.fromkeys(COUNTERS, 0) | {
            "self_dir": 1 + len(nested),
            "self_nested": len(nested),
            "self_regular": len(files),
            "self_file_size": sum(map(len, files.values())),
        }
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(CATALOG_SCHEMA)
            flags = EntryFlag.DIRECTORY | (EntryFlag.NESTED_ROOT if path else 0)
            _insert(connection, path, mode=stat.S_IFDIR | 0o755, flags=flags, links=2 + len(nested))
            for name, content in files.items():
                self._file(connection, f"{path}/{name}", content)
            for mountpoint, (hash_, size) in nested.items():
                flags = EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT
                _insert(connection, mountpoint, mode=stat.S_IFDIR | 0o755, flags=flags, links=2)
                connection.execute("INSERT INTO nested_catalogs VALUES (?, ?, ?)", (mountpoint, str(hash_), size))
            connection.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())
            connection.executemany("INSERT INTO statistics VALUES (?, ?)", counters.items())
            connection.commit()
            content = bytes(connection.serialize())
        return self.access.put(content, ObjectKind.CATALOG), len(content)

    def _file(self, connection: sqlite3.Connection, path: str, content: bytes) -> None:
        chunked = len(content) > _CHUNK
        flags = EntryFlag.FILE | (EntryFlag.CHUNKED if chunked else 0)
        digest = None if chunked else self.access.put(content, ObjectKind.FILE).digest
        _insert(connection, path, mode=stat.S_IFREG | 0o644, flags=flags, links=1, size=len(content), digest=digest)
        for offset in range(0, len(content) if chunked else 0, _CHUNK):
            piece = content[offset : offset + _CHUNK]
            chunk = self.access.put(piece, ObjectKind.CHUNK).digest
            row = (*path_hash(path.encode()), offset, len(piece), chunk)
            connection.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", row)


def _insert(
    connection: sqlite3.Connection,
    path: str,
    *,
    mode: int,
    flags: int,
    links: int,
    size: int = 4096,
    digest: bytes | None = None,
) -> None:
    parent, _, name = path.rpartition("/")
    row = {
        **dict(zip(("md5path_1", "md5path_2"), path_hash(path.encode()), strict=True)),
        **dict(zip(("parent_1", "parent_2"), path_hash(parent.encode()) if path else (0, 0), strict=True)),
        "hardlinks": links,
        "hash": digest,
        "size": size,
        "mode": mode,
        "mtime": 0,
        "flags": int(flags),
        "name": name,
        "symlink": "",
        "uid": 0,
        "gid": 0,
    }
    columns, places = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO catalog ({columns}) VALUES ({places})", tuple(row.values()))  # noqa: S608


def content(seed: str, size: int) -> bytes:
    """Make content that nothing else has and that does not compress to nothing."""
    return hashlib.shake_128(seed.encode()).digest(size)
