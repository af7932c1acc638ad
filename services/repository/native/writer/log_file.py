"""The reference log in the storage, and how it changes together with the manifest, which has its hash.

Two files cannot be replaced at once, and a log that is not the one of the manifest is a defect to every checker. A log
that is not there is none: clients never ask for it, and checkers pass over it. So the order is:

1. the new log is stored beside the present one,
2. the present one is deleted,
3. the manifest is replaced,
4. the new log is put in its place.

Whatever is found after a kill is right, and whoever opens the repository next to change it finishes it: the publisher
when it starts, and every command but those that only read. After a kill before the third step the waiting log knows
more than the manifest, as if what it knows besides had been published and collected; the manifest is signed again for
it.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

from services.repository.native.errors import ObjectMissingError, OvertakenError, StorageError
from services.repository.native.records import REFLOG, WAITING_REFLOG, ContentHash, HashAlgorithm
from services.repository.native.storage.interface import Storage

__all__ = ["LogFile", "StoredLog"]

_log: Final = structlog.get_logger(__name__)


class StoredLog(NamedTuple):
    """A reference log that has been read or written."""

    content: bytes
    name: ContentHash


class LogFile:
    """The reference log of one repository (blocking; its changes are made by the holder of the write lock).

    Parameters
    ----------
    storage
        Where the repository is.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._version: str | None = None
        """Of the log that was read or written last, as the storage names it."""
        self._last: StoredLog | None = None

    def find(self, known: ContentHash | None, algorithm: HashAlgorithm) -> StoredLog | None:
        """Return the log, after what a kill has interrupted has been finished; None where there is none.

        It grows with every revision, and is read only where others have replaced it.

        Parameters
        ----------
        known
            The hash that the manifest has; another log than that is returned as well.
        algorithm
            Of its hash.

        Raises
        ------
        StorageError
            The storage failed.
        """
        version = self._storage.version(REFLOG)
        if version is None:
            return self._finish(known, algorithm)
        if self._last is None or self._version != version or self._last.name.algorithm is not algorithm:
            self._last = _stored(self._storage.read(REFLOG), algorithm)
            self._version = version
        return self._last

    def replace(self, log: StoredLog, publish: Callable[[], None]) -> None:
        """Replace the log and the manifest.

        Parameters
        ----------
        log
            The new log.
        publish
            Replaces the manifest.

        Raises
        ------
        StorageError, OvertakenError
            The manifest is not the new one; its log is there or none is.
        """
        self._storage.replace(WAITING_REFLOG, log.content)
        self._storage.delete([REFLOG])
        publish()
        try:
            self._settle(log)
        except (StorageError, OvertakenError) as error:
            # What was to be published has been.
            _log.warning("the reference log is put in its place with the next change", reason=str(error))

    def _finish(self, known: ContentHash | None, algorithm: HashAlgorithm) -> StoredLog | None:
        try:
            waiting = _stored(self._storage.read(WAITING_REFLOG), algorithm)
        except ObjectMissingError:
            return None
        if waiting.name == known:
            self._settle(waiting)
        return waiting

    def _settle(self, log: StoredLog) -> None:
        self._last = None
        self._storage.move(WAITING_REFLOG, REFLOG)
        self._version, self._last = self._storage.version(REFLOG), log


def _stored(content: bytes, algorithm: HashAlgorithm) -> StoredLog:
    return StoredLog(content, ContentHash.of(content, algorithm))
