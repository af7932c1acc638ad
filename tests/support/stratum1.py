"""A stratum 1, which copies a repository as `cvmfs_server snapshot` does; nothing of the suite's code is used for it.

What was measured of the real one: objects are copied byte by byte and only if they are what their names say; the
certificate and the meta information are decompressed, compressed anew with the stock zlib, and stored under the names
that the manifest has, unless something is there; the reference log is the replica's own; no predecessor is fetched the
first time.
"""

import hashlib
import shutil
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Final

__all__ = ["Replica"]

_REFLOG: Final = """
CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, CONSTRAINT pk_refs PRIMARY KEY (hash));
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
INSERT INTO properties VALUES ('schema', '1.0'), ('schema_revision', '0');
"""
_KINDS: Final = {"C": 0, "X": 1, "H": 2, "M": 3}


class Replica:
    """A stratum 1's copy of a repository.

    Parameters
    ----------
    source
        Root of the repository.
    root
        Where the copy is made.
    """

    def __init__(self, source: Path, root: Path) -> None:
        self._source = source
        self.root = root
        self._fields: dict[str, str] = {}

    def snapshot(self) -> None:
        """Copy what is new: all after the first time follow the predecessors of catalogs, of nested ones as well."""
        assert (self._source / ".cvmfs_master_replica").exists(), "this is not a CernVM-FS server for replication"
        self.root.mkdir(exist_ok=True)
        manifest = (self._source / ".cvmfspublished").read_bytes()
        body = manifest.partition(b"--\n")[0].decode("ascii")
        self._fields = {line[:1]: line[1:] for line in body.splitlines()}
        meta = self._read(self._fields["M"], "M") if "M" in self._fields else None
        certificate = self._read(self._fields["X"], "X")
        first = not self.holds(".cvmfspublished")
        roots = [self._fields["C"]]
        if "H" in self._fields:
            with _opened(zlib.decompress(self._copy(self._fields["H"], "H"))) as history:
                roots += [root for (root,) in history.execute("SELECT hash FROM tags")]
        for root in roots:
            self._catalog(root, "", first=first)
        self._store(self._fields["X"], "X", zlib.compress(certificate, 6))
        if meta is not None:
            self._store(self._fields["M"], "M", zlib.compress(meta, 6))
        self._log()
        for name in (".cvmfswhitelist", ".cvmfspublished"):
            shutil.copy(self._source / name, self.root / name)
        (self.root / ".cvmfs_last_snapshot").write_text("Fri Nov 27 20:04:00 UTC 2026\n")

    def holds(self, path: str) -> bool:
        """Tell whether a file has been copied."""
        return (self.root / path).exists()

    def holds_object(self, name: str, letter: str) -> bool:
        """Tell whether an object has been copied."""
        return _object(self.root, name, letter).exists()

    def _catalog(self, name: str, path: str, *, first: bool) -> None:
        if self.holds_object(name, "C"):
            return
        collected = self._fields["G"] == "yes"
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
            if not first and previous.strip("0"):
                self._catalog(previous, path, first=first)
            for below, nested in catalog.execute("SELECT path, sha1 FROM nested_catalogs").fetchall():
                self._catalog(nested, below, first=first)
        self._copy(name, "C")

    def _copy(self, name: str, letter: str) -> bytes:
        stored = self._fetch(name, letter)
        self._store(name, letter, stored)
        return stored

    def _store(self, name: str, letter: str, stored: bytes) -> None:
        place = _object(self.root, name, letter)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(stored)

    def _log(self) -> None:
        path = self.root / ".cvmfsreflog"
        known = path.exists()
        with closing(sqlite3.connect(path)) as log:
            if not known:
                log.executescript(_REFLOG)
                log.execute("INSERT INTO properties VALUES ('fqrn', ?)", (self._fields["N"],))
            rows = [(self._fields[field], kind) for field, kind in _KINDS.items() if field in self._fields]
            log.executemany("INSERT OR REPLACE INTO refs VALUES (?, ?, strftime('%s'))", rows)
            log.commit()

    def _read(self, name: str, letter: str) -> bytes:
        return zlib.decompress(self._fetch(name, letter))

    def _fetch(self, name: str, letter: str) -> bytes:
        stored = _object(self._source, name, letter).read_bytes()
        assert hashlib.sha1(stored, usedforsecurity=False).hexdigest() == name
        return stored


def _object(root: Path, name: str, letter: str) -> Path:
    return root / "data" / name[:2] / (name[2:] + letter)


def _opened(content: bytes) -> "closing[sqlite3.Connection]":
    connection = sqlite3.connect(":memory:")
    connection.deserialize(content)
    return closing(connection)
