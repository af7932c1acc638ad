"""The head of a repository: the one place where a revision becomes visible.

Whoever changes the head (a publish, a change of tags, a garbage collection) holds the storage's write lock and goes
through `HeadWriter`, which keeps the order that readers need: objects, then history and certificate, then the reference
log, then the manifest. A kill between the last two leaves a reference log that knows more than the manifest says, which
clients never look at; `repair` signs the manifest again.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final, NamedTuple, Protocol

from services.common.repository_name import RepositoryName
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.records import (
    MANIFEST,
    REFLOG,
    ContentHash,
    HashAlgorithm,
    ObjectKind,
    RefKind,
)
from services.repository.native.signer import Signer
from services.repository.native.storage.interface import NewObject, Storage
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.manifest import Manifest

__all__ = ["HeadWriter", "HistoryKeeper", "ReflogKeeper", "Root"]

_TTL: Final = 240


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root catalog that has been stored."""

    catalog: ContentHash
    size: int
    """Size of the uncompressed catalog, in bytes."""
    revision: int
    """As the catalog's own property says."""
    published: int
    """Seconds since the epoch."""


class HistoryKeeper(Protocol):
    """Keeps the tag database."""

    def advance(self, current: bytes | None, *, previous: ContentHash, name: RepositoryName, root: Root) -> bytes:
        """Return the tag database whose `trunk` is the new root.

        Parameters
        ----------
        current
            The uncompressed tag database so far; None where there is none.
        previous
            Content hash of the tag database so far, or the null hash.
        """


class ReflogKeeper(Protocol):
    """Keeps the reference log."""

    def add(
        self,
        current: bytes | None,
        references: Sequence[tuple[ContentHash, RefKind]],
        *,
        name: RepositoryName,
        timestamp: int,
    ) -> bytes:
        """Return the reference log with more references; one that is there gets the new time."""


class _Log(NamedTuple):
    """A reference log that has been read or written."""

    version: str
    """As the storage names it."""
    content: bytes
    name: ContentHash


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
        compressor: Compressor,
        history: HistoryKeeper,
        reflog: ReflogKeeper,
        ttl: int = _TTL,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._storage = storage
        self._signer = signer
        self._compressor = compressor
        self._history = history
        self._reflog = reflog
        self._ttl = ttl
        self._clock = clock
        self._last: _Log | None = None

    def read(self) -> Manifest:
        """Return the manifest of the head.

        Raises
        ------
        BrokenRepositoryError
            There is none, it is damaged, or it is another repository's.
        StorageError
            The storage failed.
        """
        try:
            manifest = Manifest.parse(self._storage.read(MANIFEST))
        except ObjectMissingError as error:
            raise BrokenRepositoryError(f"{self._storage} holds no repository: it has no {MANIFEST}") from error
        if manifest.name != self._name:
            raise BrokenRepositoryError(f"{self._storage} holds the repository {manifest.name}, not {self._name}")
        return manifest

    def next_time(self, previous: Manifest | None) -> int:
        """Return the time of the next revision: now, but always later than the one before."""
        now = int(self._clock())
        return now if previous is None else max(now, previous.published + 1)

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
        """
        certificate = self._put_certificate()
        history = self._put(self._next_history(root, previous), ObjectKind.HISTORY)
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
        current = self._log(root.catalog.algorithm) if previous else None
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
        return manifest.certificate == self._stored_certificate[0]

    @cached_property
    def _stored_certificate(self) -> tuple[ContentHash, bytes]:
        stored = self._compressor.compress(self.certificate)
        return self._compressor.name(stored), stored

    def _put_certificate(self) -> ContentHash:
        name, stored = self._stored_certificate
        self._storage.put([NewObject(name.path(ObjectKind.CERTIFICATE), stored)])
        return name

    def replace(self, manifest: Manifest, *, reflog: bytes) -> Manifest:
        """Bring all objects to the disk, then replace the reference log and the manifest, which gets the log's hash.

        The manifest also gets the certificate of the key that signs it, which may not be that of the one before.
        """
        if not self.signs(manifest):
            certificate = self._put_certificate()
            manifest = dataclasses.replace(manifest, certificate=certificate)
            reflog = self._reflog.add(
                reflog, [(certificate, RefKind.CERTIFICATE)], name=self._name, timestamp=manifest.published
            )
        name = ContentHash.of(reflog, manifest.root.algorithm)
        manifest = dataclasses.replace(manifest, reflog=name)
        content = manifest.encode(self._signer)
        self._storage.flush()
        self._storage.replace(REFLOG, reflog)
        version = self._storage.version(REFLOG)
        self._last = _Log(version, reflog, name) if version is not None else None
        self._storage.replace(MANIFEST, content)
        return manifest

    def repair(self, reconstruct: Callable[[Manifest], bytes]) -> Manifest:
        """Sign the manifest again if it does not know the reference log; return the manifest of the head.

        So it is if a kill came between the two, after a collection by the stock tools, and where another log was put
        there: a log that is damaged is not signed, and one that lacks what the manifest names gets it.

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
        manifest = self.read()
        log = self._log(manifest.root.algorithm)
        if log is None:
            return self.replace(manifest, reflog=reconstruct(manifest))
        if manifest.reflog == log.name:
            return manifest
        reflog = self._reflog.add(log.content, manifest.references, name=self._name, timestamp=manifest.published)
        return self.replace(manifest, reflog=reflog)

    def _next_history(self, root: Root, previous: Manifest | None) -> bytes:
        if previous is None or previous.history is None:
            null = ContentHash.null(root.catalog.algorithm)
            return self._history.advance(None, previous=null, name=self._name, root=root)
        current = self._compressor.expand(self._storage.read(previous.history.path(ObjectKind.HISTORY)))
        return self._history.advance(current, previous=previous.history, name=self._name, root=root)

    def _put(self, content: bytes, kind: ObjectKind) -> ContentHash:
        stored = self._compressor.compress(content)
        name = self._compressor.name(stored)
        self._storage.put([NewObject(name.path(kind), stored)])
        return name

    def _log(self, algorithm: HashAlgorithm) -> _Log | None:
        """Return the reference log; it grows with every revision, and is read only where others have replaced it."""
        version = self._storage.version(REFLOG)
        if version is None:
            return None
        if self._last is None or self._last.version != version or self._last.name.algorithm is not algorithm:
            content = self._storage.read(REFLOG)
            self._last = _Log(version, content, ContentHash.of(content, algorithm))
        return self._last
