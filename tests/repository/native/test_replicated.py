"""What a stratum 1 copies, and how it goes on after revisions were collected that it has never seen.

The stand-in does what `cvmfs_swissknife pull` does, in its order; nothing of the suite's reader is used for looking.
"""

import hashlib
import sqlite3
import time
import zlib
from contextlib import closing
from pathlib import Path

from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from tests.support.native import NATIVE_NAME, NativeSite, layers_of_one_shelf, publish, tar_archive


class Replica:
    """A stratum 1 of a repository in a directory."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._first = True
        self.objects: set[str] = set()

    def snapshot(self) -> None:
        """Copy what is new: all after the first time follow the predecessors of catalogs, of nested ones as well."""
        body = (self._source / ".cvmfspublished").read_bytes().partition(b"--\n")[0].decode("ascii")
        fields = {line[:1]: line[1:] for line in body.splitlines()}
        collected = fields["G"] == "yes"
        self._catalog(fields["C"], "", collected=collected)
        with _opened(self._copy(fields["H"], "H")) as history:
            for (root,) in history.execute("SELECT hash FROM tags"):
                self._catalog(root, "", collected=collected)
        self._first = False

    def _catalog(self, name: str, path: str, *, collected: bool) -> None:
        if f"{name}C" in self.objects:
            return
        try:
            content = self._read(name, "C")
        except FileNotFoundError:
            if collected and not path:
                return  # it says that it has probably been collected
            raise
        with _opened(content) as catalog:
            for (digest,) in catalog.execute("SELECT hash FROM catalog WHERE hash IS NOT NULL"):
                self._copy(digest.hex(), "")
            for (digest,) in catalog.execute("SELECT hash FROM chunks"):
                self._copy(digest.hex(), "P")
            (previous,) = catalog.execute("SELECT value FROM properties WHERE key = 'previous_revision'").fetchone()
            if not self._first and previous.strip("0"):
                self._catalog(previous, path, collected=collected)
            for below, nested in catalog.execute("SELECT path, sha1 FROM nested_catalogs").fetchall():
                self._catalog(nested, below, collected=collected)
        self.objects.add(f"{name}C")

    def _copy(self, name: str, letter: str) -> bytes:
        content = self._read(name, letter)
        self.objects.add(name + letter)
        return content

    def _read(self, name: str, letter: str) -> bytes:
        stored = (self._source / "data" / name[:2] / (name[2:] + letter)).read_bytes()
        assert hashlib.sha1(stored, usedforsecurity=False).hexdigest() == name
        return zlib.decompress(stored)


def _opened(content: bytes) -> "closing[sqlite3.Connection]":
    connection = sqlite3.connect(":memory:")
    connection.deserialize(content)
    return closing(connection)


async def test_a_replica_goes_on_after_a_collection(site: NativeSite, tmp_path: Path) -> None:
    replica = Replica(site.root)
    first, *missed, last = (tar_archive(tmp_path, layer) for layer in layers_of_one_shelf(5))
    async with site.opened() as repository:
        await publish(repository, first)
        replica.snapshot()
        for layer in missed:
            await publish(repository, layer)
        collected = Collector(
            access=RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys),
            retention=Retention(revisions=1, days=0),
            forget=lambda _digests: None,
            patience=10,
            clock=lambda: time.time() + 365 * 86400,
        ).collect()
        assert collected.kept == (5,)
        replica.snapshot()
        await publish(repository, last)
        replica.snapshot()
    with site.reader() as reader:
        assert f"{reader.head().manifest.root}C" in replica.objects
