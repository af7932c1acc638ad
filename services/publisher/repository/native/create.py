"""Making a repository: keys, whitelist, and a first revision that is empty.

Everything is made anew or taken as it is until the manifest appears, which is the last step; so it can be killed and
repeated.
"""

import json
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

from services.common.repository_name import RepositoryName
from services.publisher.repository.native.errors import RepositoryExistsError
from services.publisher.repository.native.format import FORMAT_FILE, RepositoryFormat
from services.publisher.repository.native.records import (
    CATALOG_SCHEMA,
    CATALOG_SCHEMA_REVISION,
    CATALOG_SCHEMA_VERSION,
    COUNTERS,
    MANIFEST,
    REPLICA_MARK,
    ContentHash,
    EntryFlag,
    ObjectKind,
    path_hash,
)
from services.publisher.repository.native.storage.interface import NewObject, Storage
from services.publisher.repository.native.trust.keyring import KeyFiles
from services.publisher.repository.native.trust.renewal import WhitelistFile
from services.publisher.repository.native.writer.compressor import Compressor
from services.publisher.repository.native.writer.head import HeadWriter, Root
from services.publisher.repository.native.writer.history import History
from services.publisher.repository.native.writer.manifest import Manifest
from services.publisher.repository.native.writer.reflog import ReferenceLog

__all__ = ["create_repository"]

_TTL: Final = 240
_REPLICA_TEXT: Final = b"This file marks the repository as replicatable to stratum 1 servers\n"
_PAGE_SIZE: Final = 1024


def create_repository(
    *,
    name: RepositoryName,
    storage: Storage,
    keys: KeyFiles,
    chosen: RepositoryFormat,
    meta: Mapping[str, Any],
    whitelist: bytes | None = None,
    replicable: bool = True,
    clock: Callable[[], float] = time.time,
) -> Manifest:
    """Make a repository, and the keys of it that are missing (blocking).

    Parameters
    ----------
    name
        Its name.
    storage
        Where it is to be.
    keys
        Its keys; those that are there are used.
    chosen
        How its objects are made, ever after.
    meta
        What it says about itself to whoever asks.
    whitelist
        A whitelist that was signed where the master key is; None where that is here.
    replicable
        Whether stratum 1 servers may copy it.
    clock
        Seconds since the epoch.

    Raises
    ------
    RepositoryExistsError
        There is one.
    TrustError
        A key or the whitelist cannot be used.
    NativeError
        The storage failed.
    """
    now = clock()
    storage.prepare()
    with storage.exclusive():
        if storage.size(MANIFEST) is not None:
            raise RepositoryExistsError(f"{storage} holds a repository already")
        keyring = keys.complete(now=datetime.fromtimestamp(now, UTC))
        compressor = Compressor(chosen)
        storage.replace(FORMAT_FILE, chosen.encode())
        trusted = WhitelistFile(name=name, storage=storage, keys=keys, algorithm=chosen.algorithm, clock=clock)
        if whitelist is None:
            trusted.renew()
        else:
            trusted.install(whitelist)
        if replicable:
            storage.replace(REPLICA_MARK, _REPLICA_TEXT)
        head = HeadWriter(
            name=name,
            storage=storage,
            signer=keyring.signer,
            compressor=compressor,
            history=History(),
            reflog=ReferenceLog(),
            ttl=_TTL,
            clock=clock,
        )
        catalog = _empty_catalog(int(now), compressor)
        root = Root(
            catalog=_put(storage, compressor, catalog, ObjectKind.CATALOG),
            size=len(catalog),
            revision=1,
            published=int(now),
        )
        described = json.dumps(meta, indent=1, sort_keys=True).encode() + b"\n"
        return head.publish(root, previous=None, meta=_put(storage, compressor, described, ObjectKind.META))


def _put(storage: Storage, compressor: Compressor, content: bytes, kind: ObjectKind) -> ContentHash:
    stored = compressor.compress(content)
    name = compressor.name(stored)
    storage.put([NewObject(name.path(kind), stored)])
    return name


def _empty_catalog(now: int, compressor: Compressor) -> bytes:
    properties = {
        "schema": CATALOG_SCHEMA_VERSION,
        "schema_revision": CATALOG_SCHEMA_REVISION,
        "revision": "1",
        "last_modified": str(now),
        "previous_revision": str(ContentHash.null(compressor.algorithm)),
        "TTL": str(_TTL),
    }
    root = {
        **dict(zip(("md5path_1", "md5path_2"), path_hash(b""), strict=True)),
        "parent_1": 0,
        "parent_2": 0,
        "hardlinks": 2,
        "size": 4096,
        "mode": stat.S_IFDIR | 0o755,
        "mtime": now,
        "flags": EntryFlag.DIRECTORY.value,
        "name": "",
        "symlink": "",
        "uid": 0,
        "gid": 0,
    }
    counters = dict.fromkeys(COUNTERS, 0) | {"self_dir": 1}
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
        connection.executescript(CATALOG_SCHEMA)
        connection.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())
        connection.executemany("INSERT INTO statistics VALUES (?, ?)", counters.items())
        columns, places = ", ".join(root), ", ".join("?" * len(root))
        connection.execute(f"INSERT INTO catalog ({columns}) VALUES ({places})", tuple(root.values()))  # noqa: S608
        connection.commit()
        return bytes(connection.serialize())
