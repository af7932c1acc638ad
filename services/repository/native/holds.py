"""What a publisher holds of a repository's objects, so that no collection deletes what it is about to name."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from services.repository.native.storage.interface import Storage

__all__ = ["ObjectHolds"]

_PATIENCE: Final = 600
"""Longest wait for a garbage collection, in seconds."""


class _Hold:
    def __init__(self, held: AbstractContextManager[None]) -> None:
        self.held = held
        self.holders = 1


class ObjectHolds:
    """Holds that a layer takes while it is prepared, and shares with the transaction; safe for several threads.

    A transaction must not wait for a collection that waits for the transaction's own layers. So it joins a hold that
    is there. Layers never do: a collection gets its turn when those that are being published have been.

    Parameters
    ----------
    storage
        Where the objects are.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._open: list[_Hold] = []
        self._lock = threading.Lock()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold all objects, after a collection that waits or works; errors as `Storage.using`."""
        held = self._storage.using(patience=_PATIENCE)
        held.__enter__()
        hold = _Hold(held)
        with self._lock:
            self._open.append(hold)
        try:
            yield
        finally:
            self._leave(hold)

    @contextmanager
    def join(self) -> Iterator[None]:
        """Hold all objects as somebody does already, or as `take` does."""
        with self._lock:
            hold = self._open[-1] if self._open else None
            if hold is not None:
                hold.holders += 1
        if hold is None:
            with self.take():
                yield
            return
        try:
            yield
        finally:
            self._leave(hold)

    def _leave(self, hold: _Hold) -> None:
        with self._lock:
            hold.holders -= 1
            if hold.holders:
                return
            self._open.remove(hold)
        hold.held.__exit__(None, None, None)
