"""The collector: finds what no kept revision reaches, and deletes it.

It lists what is stored, rather than following the reference log only: so it also finds what a killed publish left.

The order is what makes it safe. What is garbage leaves the reference log first, so that no other tool looks for it.
Then root catalogs are deleted, other catalogs after them, and everything else last, so that no catalog is ever found
whose content has gone. A kill at any point leaves less garbage than there was, and the next collection finds the rest.

It works beside a publisher: everything is found without a lock. For deleting it has the objects to itself for a short
while at a time, each time after it has looked which new revisions there are.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.ledger import Doomed, Ledger
from services.repository.native.collection.names import ObjectName, pack
from services.repository.native.collection.reaching import reach_tree
from services.repository.native.collection.retention import GRACE, Retention
from services.repository.native.errors import NativeError, ObjectMissingError
from services.repository.native.records import (
    REFLOG,
    TRANSACTION_DIRECTORY,
    ContentHash,
    ObjectKind,
    RefKind,
)
from services.repository.native.revisions import revisions
from services.repository.native.storage.interface import StoredObject
from services.repository.native.writer.history import History
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.reflog import Reference, ReferenceLog

__all__ = ["Collection", "Collector", "Forget"]

Forget = Callable[[Sequence[bytes]], None]
"""Is told the hashes of objects before they are deleted."""

_STATUS: Final = ".cvmfs_status.json"
_BATCH: Final = 1000
"""Objects that are deleted at a time: as many as a bucket takes in one request."""
_FORGOTTEN: Final = 16 * _BATCH
"""Objects that others are told of at a time, who may have to look through all that they know. Some of them may stay."""
_TURN: Final = 20.0
"""Seconds for which publishing waits at a time."""
_BREATH: Final = 0.2
"""Seconds between two turns: locks are not handed over in order, and who waits for one looks again and again."""
_CATALOG_RANK: Final = 1
_LAST_RANK: Final = 2
_KINDS: Final = {
    RefKind.CATALOG: ObjectKind.CATALOG,
    RefKind.CERTIFICATE: ObjectKind.CERTIFICATE,
    RefKind.HISTORY: ObjectKind.HISTORY,
    RefKind.META: ObjectKind.META,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a collection found, and did unless it only looked."""

    kept: tuple[int, ...]
    """Numbers of the revisions that are kept for their age, newest first."""
    tagged: int
    """Tags, whose revisions are kept as well."""
    references: int
    """Root catalogs, certificates, tag databases and meta information that leave the reference log."""
    objects: int
    """Objects and left-over files that are deleted."""
    size: int
    """What they have together, in bytes."""


class Collector:
    """Collects the garbage of one repository (blocking).

    Parameters
    ----------
    access
        The repository.
    retention
        What is kept.
    forget
        Told what is about to be deleted, so that a publisher does not count on it.
    patience
        Longest wait for a publisher, each time, in seconds.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        access: RepositoryAccess,
        retention: Retention,
        forget: Forget,
        patience: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._access = access
        self._storage = access.storage
        self._retention = retention
        self._forget = forget
        self._patience = patience
        self._clock = clock
        self._reflog = ReferenceLog()

    def look(self) -> Collection:
        """Find what could be deleted, and change nothing.

        Raises
        ------
        NativeError
            The repository is damaged, so that it is not known what is reached, or the storage failed.
        """
        with self._ledger() as ledger:
            return self._find(ledger)

    def collect(self) -> Collection:
        """Delete what no kept revision reaches.

        Raises
        ------
        RepositoryBusyError
            A publisher was at work all the time; what has been deleted is deleted.
        NativeError
            As `look`.
        """
        with self._ledger() as ledger:
            found = self._find(ledger)
            objects = size = 0
            while True:
                with self._storage.collecting(patience=self._patience):
                    self._settle(ledger)
                    for gone in self._delete(ledger):
                        objects, size = objects + 1, size + gone.size
                if not ledger.totals().objects:
                    break
                time.sleep(_BREATH)
            self._note_time()
            return dataclasses.replace(found, objects=objects, size=size)

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        with tempfile.TemporaryDirectory(prefix="collection-") as directory, Ledger(Path(directory)) as ledger:
            yield ledger

    def _find(self, ledger: Ledger) -> Collection:
        manifest = self._access.verify()
        if not manifest.garbage_collectable:
            raise NativeError(
                f"{self._storage} says that it is never collected (G in its manifest): replicas rely on that"
            )
        kept, tagged = self._reach(manifest, ledger)
        garbage = self._garbage(ledger)
        ledger.doom(self._candidates())
        objects, size = ledger.totals()
        return Collection(kept=kept, tagged=tagged, references=len(garbage), objects=objects, size=size)

    def _reach(self, manifest: Manifest, ledger: Ledger) -> tuple[tuple[int, ...], int]:
        """Write down what is reached; return the numbers of the kept revisions and of tags."""
        kept = list(self._retention.kept(revisions(self._storage, manifest), now=self._clock()))
        for record in kept:
            reach_tree(self._storage, record.root, ledger)
        tags = self._tags(manifest)
        for root in tags:
            reach_tree(self._storage, root, ledger)
        self._reach_named(manifest, ledger, oldest=kept[-1].published)
        return tuple(record.revision for record in kept), len(tags)

    def _tags(self, manifest: Manifest) -> list[ContentHash]:
        if manifest.history is None:
            return []
        database = self._access.get(manifest.history, ObjectKind.HISTORY)
        return [tag.root for tag in History().read(database, name=self._access.name)]

    def _reach_named(self, manifest: Manifest, ledger: Ledger, *, oldest: int) -> None:
        """Write down certificates, tag databases and meta information: present ones, and those of kept revisions."""
        present = (
            (manifest.certificate, ObjectKind.CERTIFICATE),
            (manifest.history, ObjectKind.HISTORY),
            (manifest.meta, ObjectKind.META),
        )
        names = [pack(name.digest, kind, name.algorithm) for name, kind in present if name is not None]
        names += [
            _packed(reference)
            for reference in self._references()
            if reference.kind is not RefKind.CATALOG and reference.timestamp >= oldest
        ]
        ledger.reach(names)

    def _garbage(self, ledger: Ledger) -> list[Reference]:
        return [reference for reference in self._references() if not ledger.reaches(_packed(reference))]

    def _references(self) -> list[Reference]:
        try:
            content = self._storage.read(REFLOG)
        except ObjectMissingError:
            return []  # a log is made before anything is deleted
        return self._reflog.read(content, name=self._access.name)

    def _candidates(self) -> Iterator[Doomed]:
        limit = self._clock() - GRACE
        for stored in self._storage.list("data/"):
            if stored.modified < limit and (doomed := _doomed(stored)) is not None:
                yield doomed

    def _settle(self, ledger: Ledger) -> None:
        """Take account of what has changed since, and take what is garbage from the reference log."""
        with self._access.changing() as manifest:
            self._reach(manifest, ledger)
            ledger.spare_reached()
            garbage = self._garbage(ledger)
            if garbage:
                names = [reference.name for reference in garbage]
                reflog = self._reflog.remove(self._storage.read(REFLOG), names, name=self._access.name)
                self._access.head.replace(manifest, reflog=reflog)
            roots = [reference for reference in garbage if reference.kind is RefKind.CATALOG]
            ledger.promote(map(_packed, roots))

    def _delete(self, ledger: Ledger) -> Iterator[Doomed]:
        """Delete for a while; yield what has been."""
        end = time.monotonic() + _TURN
        rank = 0
        while doomed := ledger.take(_FORGOTTEN):
            if doomed[0].rank > rank:
                rank = doomed[0].rank
                self._storage.flush()
            self._forget([gone.digest for gone in doomed if gone.digest is not None])
            for start in range(0, len(doomed), _BATCH):
                batch = doomed[start : start + _BATCH]
                self._storage.delete([gone.path for gone in batch])
                ledger.drop(batch)
                yield from batch
                if time.monotonic() >= end:
                    return

    def _note_time(self) -> None:
        """Write down when it was, where the stock tools do."""
        try:
            read = json.loads(self._storage.read(_STATUS))
        except (ObjectMissingError, ValueError):
            read = None
        status = read if isinstance(read, dict) else {}
        status["last_gc"] = f"{datetime.fromtimestamp(self._clock(), UTC):%a %b %e %H:%M:%S UTC %Y}"
        self._storage.replace(_STATUS, json.dumps(status, indent=2).encode() + b"\n")


def _packed(reference: Reference) -> bytes:
    return pack(reference.name.digest, _KINDS[reference.kind], reference.name.algorithm)


def _doomed(stored: StoredObject) -> Doomed | None:
    """Describe what may be deleted; None for what is none of the collector's business."""
    name = ObjectName.of_path(stored.path)
    if name is not None:
        rank = _CATALOG_RANK if name.kind is ObjectKind.CATALOG else _LAST_RANK
        return Doomed(name.packed, stored.path, stored.size, rank, name.hash.digest)
    if stored.path.startswith(f"{TRANSACTION_DIRECTORY}/") and not Path(stored.path).name.startswith("."):
        return Doomed(stored.path.encode(), stored.path, stored.size, _LAST_RANK, None)
    return None
