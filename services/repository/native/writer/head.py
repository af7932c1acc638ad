"""The head of a repository: the one place where a revision becomes visible.

Whoever changes the head (a publish, a change of tags, a garbage collection) holds the storage's write lock and goes
through `HeadWriter`, which keeps the order that readers need: objects, then history and certificate, then the manifest,
with which the reference log changes as `LogFile` describes. `repair` makes whole what a kill has left.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import cached_property
from typing import Final

from services.common.repository_name import RepositoryName
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.records import (
    MANIFEST,
    ContentHash,
    ObjectKind,
    RefKind,
)
from services.repository.native.replication import is_copied_right
from services.repository.native.signer import Signer
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.history import History
from services.repository.native.writer.log_file import LogFile, StoredLog
from services.repository.native.writer.manifest import Manifest, Root
from services.repository.native.writer.reflog import ReferenceLog
from services.repository.native.writer.small_objects import SmallObjects
from services.repository.native.writer.state import Highest

__all__ = ["HeadWriter", "Root"]

_TTL: Final = 240


class HeadWriter:
    """Replaces the head of one repository.

    Parameters
    ----------
    ttl
        Seconds for which clients do not look for a newer revision.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        name: RepositoryName,
        storage: Storage,
        signer: Signer,
        objects: SmallObjects,
        ttl: int = _TTL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._storage = storage
        self._signer = signer
        self._objects = objects
        self._history = History()
        self._reflog = ReferenceLog()
        self._ttl = ttl
        self._clock = clock
        self._log = LogFile(storage)
        self._base: str | None = None
        """Version of the manifest that the next one takes the place of; None where there is none."""
        self._copied_right: set[ContentHash] = set()
        """Certificates and meta information of which that is known."""

    def read(self) -> Manifest:
        """Return the manifest of the head.

        Raises
        ------
        BrokenRepositoryError
            There is none, it is damaged, or it is another repository's.
        StorageError
            The storage failed.
        """
        return self._look()[0]

    def _look(self) -> tuple[Manifest, str]:
        try:
            content, version = self._storage.look(MANIFEST)
        except ObjectMissingError as error:
            raise BrokenRepositoryError(
                f"{self._storage} holds no repository: it has no {MANIFEST}: restore it from a replica or a backup"
            ) from error
        manifest = Manifest.parse(content)
        if manifest.name != self._name:
            raise BrokenRepositoryError(f"{self._storage} holds the repository {manifest.name}, not {self._name}")
        return manifest, version

    def next_time(self, previous: Manifest | None) -> int:
        """Return the time of the next revision: now, and the one before's where the clock has gone back.

        Clients take a revision whose number is higher and whose time is not earlier. So revisions of the same second
        have the same time, rather than times that are yet to come.
        """
        now = int(self._clock())
        return now if previous is None else max(now, previous.published)

    def next_revision(self, previous: Manifest, highest: Highest) -> Highest:
        """Return number and time of the next revision.

        Parameters
        ----------
        previous
            The head.
        highest
            What is known besides of revisions that clients may have seen, as of a head that a backup has replaced.
        """
        return Highest(
            revision=max(previous.revision, highest.revision) + 1,
            published=max(self.next_time(previous), highest.published),
        )

    def publish(self, root: Root, *, previous: Manifest | None, meta: ContentHash | None = None) -> Manifest:
        """Make a root catalog the head.

        Parameters
        ----------
        root
            It and everything below it has been put into the storage.
        previous
            The head so far; None where the repository is being created.
        meta
            Meta information, where that changes.

        Raises
        ------
        OvertakenError, StorageError
            As `replace`.
        """
        certificate = self._objects.put(self.certificate, ObjectKind.CERTIFICATE)
        history = self._objects.put(self._next_history(root, previous), ObjectKind.HISTORY)
        meta = meta or (previous.meta if previous else None)
        manifest = Manifest(
            name=self._name,
            root=root.catalog,
            root_size=root.size,
            revision=root.revision,
            published=root.published,
            certificate=certificate,
            ttl=self._ttl if previous is None else previous.ttl,
            garbage_collectable=previous is None or previous.garbage_collectable,
            history=history,
            meta=meta,
        )
        current = self._log.find(previous.reflog, root.catalog.algorithm) if previous else None
        reflog = self._reflog.add(
            current.content if current else None, manifest.references, name=self._name, timestamp=root.published
        )
        return self.replace(manifest, reflog=reflog)

    @property
    def certificate(self) -> bytes:
        """The certificate of the key that signs, PEM."""
        return self._signer.certificate

    def signs(self, manifest: Manifest) -> bool:
        """Tell whether a manifest names the certificate of the key that signs, as it is stored here."""
        return manifest.certificate == self._certificate_name

    @cached_property
    def _certificate_name(self) -> ContentHash:
        return self._objects.name(self.certificate, ObjectKind.CERTIFICATE)

    def is_copied_right(self, manifest: Manifest) -> bool:
        """Tell whether replicas can be mounted that copy a manifest and what it names.

        Raises
        ------
        StorageError
            The storage failed.
        """
        named = [(manifest.certificate, ObjectKind.CERTIFICATE)]
        named += [(manifest.meta, ObjectKind.META)] if manifest.meta else []
        return all(self._made_otherwise(name, kind) is None for name, kind in named)

    def replace(self, manifest: Manifest, *, reflog: bytes) -> Manifest:
        """Bring all objects to the disk, then replace the reference log and the manifest, which gets the log's hash.

        The manifest also gets the certificate of the key that signs it, which may not be that of the one before.

        Raises
        ------
        OvertakenError
            The head is no longer the one that `repair` found; nothing that is visible has been changed.
        StorageError
            The storage failed.
        """
        if not self.signs(manifest):
            certificate = self._objects.put(self.certificate, ObjectKind.CERTIFICATE)
            manifest = dataclasses.replace(manifest, certificate=certificate)
            reflog = self._reflog.add(
                reflog, [(certificate, RefKind.CERTIFICATE)], name=self._name, timestamp=manifest.published
            )
        log = StoredLog(reflog, ContentHash.of(reflog, manifest.root.algorithm))
        manifest = dataclasses.replace(manifest, reflog=log.name)
        content = manifest.encode(self._signer)
        self._storage.flush_put()
        self._log.replace(log, lambda: self._exchange(content))
        return manifest

    def _exchange(self, content: bytes) -> None:
        self._base = self._storage.exchange(MANIFEST, content, self._base)

    def repair(self, reconstruct: Callable[[Manifest], bytes]) -> Manifest:
        """Sign the manifest again if something is wrong with what it names; return the manifest of the head.

        What `publish` and `replace` do from then on takes the place of this head, and of no other.

        It does not know the reference log if a kill came before the manifest was replaced, after a collection by the
        stock tools, and where another log was put there: a log that is damaged is not signed, and one that lacks what
        the manifest names gets it. It names a certificate or meta information that replication cannot copy where an
        earlier version of this suite, or another program, has compressed them in its own way: they are made anew.

        Parameters
        ----------
        reconstruct
            Makes a reference log where there is none.

        Raises
        ------
        BrokenRepositoryError
            The reference log is damaged.
        NativeError
            As `read`, or what `reconstruct` raises.
        """
        found, self._base = self._look()
        manifest = self._mended(found)
        log = self._log.find(manifest.reflog, manifest.root.algorithm)
        if log is None:
            return self.replace(manifest, reflog=reconstruct(manifest))
        if manifest.reflog == log.name and manifest == found:
            return manifest
        reflog = self._reflog.add(log.content, manifest.references, name=self._name, timestamp=manifest.published)
        return self.replace(manifest, reflog=reflog)

    def _next_history(self, root: Root, previous: Manifest | None) -> bytes:
        if previous is None or previous.history is None:
            null = ContentHash.null(root.catalog.algorithm)
            return self._history.advance(None, previous=null, name=self._name, root=root)
        current = self._objects.get(previous.history, ObjectKind.HISTORY)
        return self._history.advance(current, previous=previous.history, name=self._name, root=root)

    def _mended(self, manifest: Manifest) -> Manifest:
        """Return a manifest of which replication copies everything right; what it names is stored."""
        if self._made_otherwise(manifest.certificate, ObjectKind.CERTIFICATE) is not None:
            # It is the present key that signs it now, whichever has signed the one before.
            certificate = self._objects.put(self.certificate, ObjectKind.CERTIFICATE)
            manifest = dataclasses.replace(manifest, certificate=certificate)
        if manifest.meta is not None:
            content = self._made_otherwise(manifest.meta, ObjectKind.META)
            if content is not None:
                manifest = dataclasses.replace(manifest, meta=self._objects.put(content, ObjectKind.META))
        return manifest

    def _made_otherwise(self, name: ContentHash, kind: ObjectKind) -> bytes | None:
        """Return the content of an object that replication would store under a name that is not its own."""
        if name in self._copied_right or name == self._certificate_name:
            return None
        try:
            content = self._objects.get(name, kind)
        except (ObjectMissingError, BrokenRepositoryError):
            return None  # there is nothing to make it of, which checks tell
        if not is_copied_right(name, content):
            return content
        self._copied_right.add(name)
        return None
