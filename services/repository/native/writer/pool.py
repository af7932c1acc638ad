"""The worker processes, and the shared memory that content goes to them in; catalogs go as their rows.

The memory is a fixed number of *trays*. Whoever has content takes an empty tray, waiting while there is none, fills it,
and hands it to a worker; so memory is bounded whatever the size and the number of layers.
"""

import mmap
import os
import queue
import socket
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from services.common.cores import usable_cores
from services.repository.native.errors import StorageError
from services.repository.native.flat.contents import Below, FlatContents, pack_flat
from services.repository.native.format import RepositoryFormat
from services.repository.native.records import COUNTER_NAMES, ContentHash, ObjectKind
from services.repository.native.writer.encoder import Encoded
from services.repository.native.writer.frames import receive, send
from services.repository.native.writer.worker import (
    ANEW,
    ANSWER,
    CATALOG,
    CONTENT,
    FAILED,
    FLAT,
    KINDS,
    PLACE,
    STORED,
    WorkerOrder,
)

__all__ = ["TRAY_SIZE", "CountedCatalog", "StoredCatalog", "Tray", "WorkerPool"]

TRAY_SIZE: Final = 4 << 20
"""Size of a tray, in bytes; the largest piece of content that is one object."""

_MORE_CATALOGS: Final = 2
"""Catalogs besides the one that each worker makes, whose rows wait."""

_MORE_TRAYS: Final = 3
"""Trays besides the one that each worker works on: so many are being filled or wait."""


_Stored = TypeVar("_Stored")


class StoredCatalog(NamedTuple):
    """A catalog that has been put into the storage."""

    name: ContentHash
    size: int
    """Size of the uncompressed catalog, in bytes."""


class CountedCatalog(NamedTuple):
    """The same of a catalog that the process which made it has counted."""

    name: ContentHash
    size: int
    counters: Mapping[str, int]
    """By `COUNTER_NAMES`: of it and everything below it."""


class Tray:
    """A part of the shared memory, filled by one thread."""

    __slots__ = ("_offset", "memory", "places", "used")

    def __init__(self, memory: memoryview, offset: int) -> None:
        self.memory = memory
        """The whole tray."""
        self.used = 0
        """Bytes that are filled."""
        self.places = array(PLACE)
        """Kind, offset in the shared memory, and size of each piece."""
        self._offset = offset

    def piece_ends(self, size: int, kind: ObjectKind) -> None:
        """Make so many of the last bytes that were filled the content of an object."""
        self.places.extend((KINDS.index(kind), self._offset + self.used - size, size))

    def clear(self) -> None:
        """Empty the tray."""
        self.used = 0
        self.places = array(PLACE)


class WorkerPool:
    """A context manager that keeps one process for each core that it may use; safe for several threads.

    Parameters
    ----------
    files
        The directory that holds `data`.
    index
        The content index's file, which exists.
    chosen
        How objects are made.
    check
        Whether the index is believed only where the object's file is there.
    workers
        How many processes there are; None takes one for each core that this process may use.
    """

    def __init__(
        self, *, files: Path, index: Path, chosen: RepositoryFormat, check: bool, workers: int | None = None
    ) -> None:
        self._files = files
        self._index = index
        self._chosen = chosen
        self._check = check
        self._workers = workers or usable_cores()
        self._trays: queue.SimpleQueue[Tray] = queue.SimpleQueue()
        self._catalogs = threading.BoundedSemaphore(self._workers + _MORE_CATALOGS)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            count = self._workers + _MORE_TRAYS
            self._memory = os.memfd_create("native-repository", os.MFD_CLOEXEC)
            stack.callback(os.close, self._memory)
            os.ftruncate(self._memory, count * TRAY_SIZE)
            shared = memoryview(stack.enter_context(mmap.mmap(self._memory, 0)))
            stack.callback(shared.release)
            self._processes: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
            for _ in range(self._workers):
                # They start side by side, and are ready long before the first layer has come.
                self._processes.put(self._start())
            stack.callback(self._end_workers)
            for number in range(count):
                memory = shared[number * TRAY_SIZE : (number + 1) * TRAY_SIZE]
                stack.callback(memory.release)
                self._trays.put(Tray(memory, number * TRAY_SIZE))
            self._threads = ThreadPoolExecutor(self._workers, "object-worker")
            stack.callback(self._threads.shutdown)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def take_tray(self) -> Tray:
        """Return an empty tray, when there is one; it goes back by `encode` or `return_tray`."""
        return self._trays.get()

    def return_tray(self, tray: Tray) -> None:
        """Give a tray back that nothing is to be made of."""
        tray.clear()
        self._trays.put(tray)

    def encode(self, tray: Tray) -> "Future[Sequence[Encoded]]":
        """Make objects of the pieces in a tray, which is no longer the caller's.

        Returns
        -------
        Future
            The objects, in the order of the pieces; or StorageError.
        """
        return self._threads.submit(self._encode, CONTENT, tray)

    def encode_anew(self, tray: Tray) -> "Future[Sequence[Encoded]]":
        """Make them as `encode` does, and write each over whatever is in its place."""
        return self._threads.submit(self._encode, ANEW, tray)

    def store_catalog(self, packed: bytes) -> "Future[StoredCatalog]":
        """Make a catalog in memory and store it; waits while too many are waiting.

        Parameters
        ----------
        packed
            What is in it, as `CatalogRows` packs it.

        Returns
        -------
        Future
            The catalog; or StorageError.
        """
        return self._when_free(self._store_catalog, CATALOG + packed)

    def store_flat(self, contents: FlatContents, below: Iterable[Below]) -> "Future[CountedCatalog]":
        """Make a catalog of a flat image in memory and store it; waits while too many are waiting.

        Parameters
        ----------
        contents
            What it is made of.
        below
            The catalogs directly below it, taken when nothing else is left to do.

        Returns
        -------
        Future
            The catalog; or StorageError.
        """
        return self._when_free(self._store_flat, FLAT + pack_flat(contents, below))

    def _when_free(self, work: Callable[[bytes], _Stored], request: bytes) -> "Future[_Stored]":
        self._catalogs.acquire()
        try:
            return self._threads.submit(self._ask_for, work, request)
        except BaseException:
            self._catalogs.release()
            raise

    def _ask_for(self, work: Callable[[bytes], _Stored], request: bytes) -> _Stored:
        try:
            return work(request)
        finally:
            self._catalogs.release()

    def _encode(self, request: bytes, tray: Tray) -> Sequence[Encoded]:
        try:
            answer = self._ask(request + tray.places.tobytes())
        finally:
            self.return_tray(tray)
        return [Encoded(key, digest, known) for known, key, digest in ANSWER.iter_unpack(answer)]

    def _store_catalog(self, request: bytes) -> StoredCatalog:
        digest, size = STORED.unpack(self._ask(request))
        return StoredCatalog(ContentHash(digest, self._chosen.algorithm), size)

    def _store_flat(self, request: bytes) -> CountedCatalog:
        answer = self._ask(request)
        digest, size = STORED.unpack_from(answer)
        counters = dict(zip(COUNTER_NAMES, array(PLACE, answer[STORED.size :].tobytes()), strict=True))
        return CountedCatalog(ContentHash(digest, self._chosen.algorithm), size, counters)

    def _ask(self, request: bytes) -> memoryview:
        worker = self._processes.get()
        try:
            answer = worker.ask(request)
        except (OSError, EOFError) as error:
            status = worker.end()
            worker = self._start()
            raise StorageError(
                f"a process that writes objects ended with status {status}: was it killed for lack of memory?"
            ) from error
        finally:
            self._processes.put(worker)
        if answer[:1] == FAILED:
            raise StorageError(f"an object cannot be written below {self._files}: {answer[1:].decode()}")
        return memoryview(answer)[1:]

    def _start(self) -> "_Worker":
        ours, theirs = socket.socketpair()
        with theirs:
            order = WorkerOrder(
                connection=theirs.fileno(),
                memory=self._memory,
                files=self._files,
                index=self._index,
                chosen=self._chosen,
                check=self._check,
            )
            process = subprocess.Popen(
                [sys.executable, "-m", WorkerOrder.__module__, order.encode()],
                stdin=subprocess.DEVNULL,
                pass_fds=(order.connection, order.memory),
            )
        return _Worker(process, ours)

    def _end_workers(self) -> None:
        for _ in range(self._workers):
            self._processes.get().end()


class _Worker:
    """One process; used by one thread at a time."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
        self._process = process
        self._connection = connection

    def ask(self, request: bytes) -> bytearray:
        send(self._connection, request)
        return receive(self._connection)

    def end(self) -> int:
        """Let the process end, which it does when its socket is closed, and return its status."""
        self._connection.close()
        return self._process.wait()
