"""Making a repository: keys, whitelist, and a first revision that is empty.

Everything is made anew or taken as it is until the manifest appears, from which on there is a repository; so it can be
killed and repeated.
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
from services.repository.native.access import RepositoryAccess
from services.repository.native.errors import RepositoryExistsError
from services.repository.native.format import FORMAT_FILE, RepositoryFormat
from services.repository.native.records import (
    MANIFEST,
    REPLICA_MARK,
    ContentHash,
    EntryFlag,
    HashAlgorithm,
    ObjectKind,
)
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.catalog import create_schema
from services.repository.native.writer.manifest import Manifest, Root
from services.repository.native.writer.rows import DirectoryRow, insert_rows

__all__ = ["create_repository"]

_TTL: Final = 240
_REPLICA_TEXT: Final = b"This file marks the repository as replicatable to stratum 1 servers\n"


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
        keys.complete(now=datetime.fromtimestamp(now, UTC))
        storage.replace(FORMAT_FILE, chosen.encode())
        access = RepositoryAccess.open(name=name, storage=storage, keys=keys, clock=clock)
        if whitelist is None:
            access.whitelist.renew()
        else:
            access.whitelist.install(whitelist)
        if replicable:
            storage.replace(REPLICA_MARK, _REPLICA_TEXT)
        catalog = _empty_catalog(int(now), chosen.algorithm)
        root = Root(catalog=access.put(catalog, ObjectKind.CATALOG), size=len(catalog), revision=1, published=int(now))
        described = json.dumps(meta, indent=1, sort_keys=True).encode() + b"\n"
        return access.head.publish(root, previous=None, meta=access.put(described, ObjectKind.META))


def _empty_catalog(now: int, algorithm: HashAlgorithm) -> bytes:
    properties = {
        "revision": "1",
        "last_modified": str(now),
        "previous_revision": str(ContentHash.null(algorithm)),
        "TTL": str(_TTL),
    }
    root = DirectoryRow(mode=stat.S_IFDIR | 0o755, uid=0, gid=0, mtime=now, mtimens=0, links=2)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create_schema(connection, properties)
        insert_rows(connection, [root.row(b"", EntryFlag.DIRECTORY)])
        connection.execute("UPDATE statistics SET value = 1 WHERE counter = 'self_dir'")
        return bytes(connection.serialize())
