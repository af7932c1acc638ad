"""A repository that an operator's command works on: everything that reads and changes its head, put together once."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

import structlog

from services.common.repository_name import RepositoryName
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError, RepositoryBusyError
from services.repository.native.format import FORMAT_FILE, RepositoryFormat
from services.repository.native.reconstruction import reconstruct_reflog
from services.repository.native.records import REFLOG, WAITING_REFLOG, ContentHash, ObjectKind
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.chain import verify_head
from services.repository.native.trust.errors import TrustError
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.trust.keys import Certificate
from services.repository.native.trust.renewal import WhitelistFile
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.head import HeadWriter
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.small_objects import SmallObjects

__all__ = ["RepositoryAccess"]

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryAccess:
    """One repository (blocking)."""

    name: RepositoryName
    storage: Storage
    chosen: RepositoryFormat
    whitelist: WhitelistFile
    compressor: Compressor
    objects: SmallObjects
    head: HeadWriter
    keys: KeyFiles

    @classmethod
    def open(
        cls,
        *,
        name: RepositoryName,
        storage: Storage,
        keys: KeyFiles,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Read how the repository is made, and its keys; finish a change of the head that a kill has interrupted.

        Raises
        ------
        TrustError
            A key cannot be used.
        BrokenRepositoryError
            There is no repository, or it was never created nor imported by this suite.
        StorageError
            The storage failed.
        """
        try:
            chosen = RepositoryFormat.parse(storage.read(FORMAT_FILE))
        except ObjectMissingError as error:
            raise BrokenRepositoryError(
                f"{storage} has no {FORMAT_FILE}: create a repository there, or import the one that is there"
            ) from error
        access = cls.assume(name=name, storage=storage, keys=keys, chosen=chosen, clock=clock)
        access.finish()
        return access

    @classmethod
    def assume(
        cls,
        *,
        name: RepositoryName,
        storage: Storage,
        keys: KeyFiles,
        chosen: RepositoryFormat,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open a repository whose storage does not say yet how it is made.

        Raises
        ------
        TrustError
            A key cannot be used.
        """
        compressor = Compressor(chosen)
        objects = SmallObjects(storage, compressor)
        return cls(
            name=name,
            storage=storage,
            chosen=chosen,
            whitelist=WhitelistFile(name=name, storage=storage, keys=keys, algorithm=chosen.algorithm, clock=clock),
            compressor=compressor,
            objects=objects,
            head=HeadWriter(
                name=name,
                storage=storage,
                signer=keys.load().signer,
                objects=objects,
                clock=clock,
            ),
            keys=keys,
        )

    def verify(self) -> Manifest:
        """Return the manifest of the head, after every signature has been checked.

        Raises
        ------
        NativeError
            Something is missing, malformed or not signed as it should be.
        """
        return verify_head(self.storage, self.name, self.keys.load_public(), self.objects)

    @contextmanager
    def changing(self) -> Iterator[Manifest]:
        """Hold the write lock, make whole what a kill has left, and give the head, verified.

        Raises
        ------
        RepositoryBusyError
            Somebody else is changing the repository.
        WhitelistError
            Clients would refuse what the present key signs.
        NativeError
            As `verify`.
        """
        with self.storage.exclusive():
            if not self.head.signs(self.verify()):
                self.whitelist.check_signer(self.certificate)
            yield self.repair()

    def repair(self) -> Manifest:
        """Make whole what a kill has left; the caller holds the write lock, and knows that the head is to be trusted.

        Raises
        ------
        NativeError
            The reference log, or what a missing one is made of, cannot be read.
        """
        return self.head.repair(lambda manifest: reconstruct_reflog(self.storage, manifest, self.get))

    def finish(self) -> None:
        """Put a reference log in its place that waits for it, unless somebody is about to."""
        if self.storage.size(REFLOG) is not None or self.storage.size(WAITING_REFLOG) is None:
            return
        try:
            with self.changing():
                pass  # it makes whole what it finds
        except (RepositoryBusyError, TrustError, BrokenRepositoryError) as error:
            # Nobody needs it to read the repository, and what is opened may be what puts that right.
            _log.warning("an interrupted change of the head is not finished yet", reason=str(error))

    def mend(self) -> None:
        """Have the head name what replicas can copy, if it does not; that takes the write lock.

        Raises
        ------
        NativeError
            As `changing`.
        """
        if not self.head.is_copied_right(self.head.read()):
            with self.changing():
                pass  # it mends what it finds

    @property
    def certificate(self) -> Certificate:
        """The certificate of the key that signs revisions."""
        return Certificate.parse(self.head.certificate)

    def put(self, content: bytes, kind: ObjectKind) -> ContentHash:
        """Store a small object and return its name; errors as `SmallObjects.put`."""
        return self.objects.put(content, kind)

    def get(self, name: ContentHash, kind: ObjectKind) -> bytes:
        """Read a small object; errors as `SmallObjects.get`."""
        return self.objects.get(name, kind)
