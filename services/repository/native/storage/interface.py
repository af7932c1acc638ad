"""What the writer and the reader need of the place that holds a repository's files.

Paths are relative to the root of the repository: `data/ab/cdef…C`, `.cvmfspublished`. Everything blocks and may be
called from several threads at once.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

__all__ = ["Buffer", "NewObject", "Source", "Storage", "StoredObject"]

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object on its way into a repository. Its path follows from its content, so it never changes."""

    path: str
    content: Buffer


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that is there."""

    path: str
    size: int
    """In bytes."""
    modified: float
    """When it was written, in seconds since the epoch, by the clock of the storage."""


class Source(Protocol):
    """Where the files of a repository are read; `str` of it names the place, for messages."""

    def open(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file for reading from its beginning to its end.

        Raises
        ------
        ObjectMissingError
            It is not there.
        StorageError
            The storage failed.
        """

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes, or nothing where it is not there.

        Raises
        ------
        StorageError
            The storage failed.
        """


class Storage(Source, Protocol):
    """The files of one repository, which can be changed."""

    @property
    def local(self) -> Path:
        """The directory in which objects may be written as files, by `ObjectFiles`."""

    @property
    def staged(self) -> bool:
        """Whether such files go elsewhere at the next `flush`, so that what is not there may be in the repository."""

    def prepare(self) -> None:
        """Make what every repository has before anything is put into it.

        Raises
        ------
        StorageError
            It cannot be made.
        """

    def put(self, objects: Sequence[NewObject]) -> None:
        """Store objects that are not there yet, in any order; they survive a power failure from the next `flush` on.

        Whatever a kill leaves under an object's path is whole.

        Raises
        ------
        StorageError
            Some of them may be there nevertheless; putting them again is harmless.
        """

    def put_file(self, path: str, source: Path) -> None:
        """Store an object from a local file, which stays the caller's, over what is in its place; else as `put`.

        Raises
        ------
        StorageError
            As for `put`.
        """

    def flush(self) -> None:
        """Bring everything that has been put so far to the disk.

        Raises
        ------
        StorageError
            Nothing that was put since the last flush can be relied on.
        """

    def flush_put(self) -> None:
        """Bring what `put` was given so far to the disk; what others have written as files need not be waited for.

        Raises
        ------
        StorageError
            Nothing that was put since the last flush can be relied on.
        """

    def read(self, path: str) -> bytes:
        """Return a whole file; for what is known to be small.

        Raises
        ------
        ObjectMissingError
            It is not there.
        StorageError
            The storage failed.
        """

    def version(self, name: str) -> str | None:
        """Return what is another text once a file of the repository's root is replaced; nothing where it is not there.

        Raises
        ------
        StorageError
            The storage failed.
        """

    def look(self, name: str) -> tuple[bytes, str]:
        """Return a whole file of the repository's root, and its version.

        Raises
        ------
        ObjectMissingError
            It is not there.
        StorageError
            The storage failed.
        """

    def missing(self, paths: Sequence[str]) -> Sequence[str]:
        """Return those objects that are not there.

        Raises
        ------
        StorageError
            The storage failed.
        """

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Return what is there below a prefix that ends in a slash, in no order.

        Raises
        ------
        StorageError
            The storage failed.
        """

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; those that are not there are passed over.

        Raises
        ------
        StorageError
            Some of them may be gone nevertheless.
        """

    def replace(self, name: str, content: bytes) -> None:
        """Put a file of the repository's root in place of what is there, at once for every reader, and durably.

        Everything put before must have been flushed. It is the one way in which anything that is visible changes.

        Raises
        ------
        StorageError
            The old or the new file is there.
        """

    def exchange(self, name: str, content: bytes, former: str | None) -> str:
        """Put a file in the place of a certain version of it, by the holder of the write lock; otherwise as `replace`.

        Parameters
        ----------
        former
            The version; None where the file is not there.

        Returns
        -------
        str
            The new version.

        Raises
        ------
        OvertakenError
            It is another version, or the write lock has been lost; nothing has been changed.
        StorageError
            The old or the new file is there.
        """

    def move(self, name: str, place: str) -> None:
        """Put a file of the repository's root in the place of another one, at once for every reader.

        It survives a power failure from the next `replace` on; until then both may be as they were.

        Raises
        ------
        ObjectMissingError
            It is not there.
        StorageError
            What was in the place, or the file, is there, and the file under its former name perhaps as well.
        """

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the repository's write lock, across processes; a process that ends, however it does, lets it go.

        Raises
        ------
        RepositoryBusyError
            Somebody else holds it.
        StorageError
            The storage failed.
        """

    def using(self, *, patience: float) -> AbstractContextManager[None]:
        """Keep objects from being collected, across processes; any number may do so at a time.

        Whoever may make a revision name an object holds this from before it looks whether the object is there, until
        the revision is published or given up. So does a prepared layer until its transaction has ended.

        Parameters
        ----------
        patience
            Longest wait for a collector, in seconds.

        Raises
        ------
        RepositoryBusyError
            One was still at work.
        StorageError
            The storage failed.
        """

    def collections(self) -> str:
        """Return what is another text once objects may have been collected that this machine was using.

        Where locks keep that from happening it is always the same. To the holder of the write lock it stays the same.

        Raises
        ------
        StorageError
            The storage failed.
        """

    def collecting(self, *, patience: float) -> AbstractContextManager[None]:
        """Keep others from using objects, so that some can be deleted; taken before `exclusive` where both are needed.

        Parameters
        ----------
        patience
            Longest wait for those who use some now, in seconds; nobody starts to use any meanwhile.

        Raises
        ------
        RepositoryBusyError
            Somebody still did.
        StorageError
            The storage failed.
        """
