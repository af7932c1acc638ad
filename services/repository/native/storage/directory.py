"""A repository in a directory, which any web server can serve as it is."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Final

from services.common.durable import sync_directory, sync_file_system
from services.repository.native.errors import ObjectMissingError, OvertakenError, StorageError
from services.repository.native.records import TRANSACTION_DIRECTORY
from services.repository.native.storage.interface import Buffer, NewObject, StoredObject
from services.repository.native.storage.locks import RepositoryLocks
from services.repository.native.storage.object_files import ObjectFiles

__all__ = ["DirectoryStorage"]

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE: Final = 0o644


class DirectoryStorage:
    """One directory.

    Parameters
    ----------
    root
        Root of the repository: the directory that holds `.cvmfspublished` and `data`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks = RepositoryLocks(root / TRANSACTION_DIRECTORY, place=str(root))

    def __str__(self) -> str:
        return str(self._root)

    @property
    def local(self) -> Path:
        """The directory itself."""
        return self._root

    @property
    def staged(self) -> bool:
        """Objects stay where they are written."""
        return False

    def prepare(self) -> None:
        """Make the directories that every repository has.

        Raises
        ------
        StorageError
            They cannot be made.
        """
        try:
            for number in range(256):
                (self._root / f"data/{number:02x}").mkdir(mode=0o755, parents=True, exist_ok=True)
            (self._root / TRANSACTION_DIRECTORY).mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise StorageError(f"no repository can be made in {self._root}: {error}") from error

    def put(self, objects: Sequence[NewObject]) -> None:
        """Store objects that are not there yet."""
        try:
            with ObjectFiles(self._root) as files:
                for new in objects:
                    if not _is_whole(os.path.join(self._root, new.path), len(new.content)):
                        files.write(new.path, new.content)
        except OSError as error:
            raise StorageError(f"an object cannot be written below {self._root}: {error}") from error

    def put_file(self, path: str, source: Path) -> None:
        """Store an object from a local file, over whatever is in its place: that may be damaged."""
        final = os.path.join(self._root, path)
        temporary = self._temporary()
        try:
            with source.open("rb", buffering=0) as file:
                descriptor = os.open(temporary, _NEW, _MODE)
                try:
                    left = os.fstat(file.fileno()).st_size
                    while left:
                        left -= os.copy_file_range(file.fileno(), descriptor, left)
                finally:
                    os.close(descriptor)
            os.rename(temporary, final)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise StorageError(f"{final} cannot be written: {error.strerror}") from error

    def flush(self) -> None:
        """Bring everything to the disk."""
        try:
            sync_file_system(self._root)
        except OSError as error:
            raise StorageError(f"{self._root} cannot be brought to the disk: {error.strerror}") from error

    def flush_put(self) -> None:
        """Bring everything to the disk: that takes no longer than a part of it."""
        self.flush()

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        with self.open(path) as file:
            try:
                return file.read()
            except OSError as error:
                raise StorageError(f"{self._root / path} cannot be read: {error.strerror}") from error

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for reading."""
        try:
            file = (self._root / path).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise ObjectMissingError(f"{self._root / path} does not exist") from error
        except OSError as error:
            raise StorageError(f"{self._root / path} cannot be read: {error.strerror}") from error
        with file:
            yield file

    def size(self, path: str) -> int | None:
        """Return a file's size."""
        found = self._stat(path)
        return None if found is None else found.st_size

    def version(self, name: str) -> str | None:
        """Return what is another text once a file has been replaced: renaming sets the time of change."""
        found = self._stat(name)
        return None if found is None else _version(found)

    def look(self, name: str) -> tuple[bytes, str]:
        """Return a file of the root, and its version."""
        with self.open(name) as file:
            return file.read(), _version(os.fstat(file.fileno()))

    def missing(self, paths: Sequence[str]) -> Sequence[str]:
        """Return those objects that are not there."""
        return [path for path in paths if self._stat(path) is None]

    def _stat(self, path: str) -> os.stat_result | None:
        try:
            return os.stat(self._root / path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{self._root / path} cannot be read: {error.strerror}") from error

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Return what is there below a prefix."""
        try:
            for directory, _, names in os.walk(self._root / prefix, onerror=_raise):
                for name in names:
                    place = os.path.join(directory, name)
                    with contextlib.suppress(FileNotFoundError):
                        found = os.stat(place)
                        yield StoredObject(os.path.relpath(place, self._root), found.st_size, found.st_mtime)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{self._root / prefix} cannot be listed: {error.strerror}") from error

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects."""
        for path in paths:
            try:
                os.unlink(self._root / path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError(f"{self._root / path} cannot be deleted: {error.strerror}") from error

    def replace(self, name: str, content: bytes) -> None:
        """Put a file of the root in place of what is there."""
        temporary = self._temporary()
        final = self._root / name
        try:
            _write_new(temporary, content, sync=True)
            os.rename(temporary, final)
            sync_directory(self._root)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise StorageError(f"{final} cannot be written: {error.strerror}") from error

    def exchange(self, name: str, content: bytes, former: str | None) -> str:
        """Put a file of the root in the place of a version of it; the lock of this machine keeps others out."""
        if self.version(name) != former:
            raise OvertakenError(f"{self._root / name} has been changed by another program meanwhile")
        self.replace(name, content)
        return _version(os.stat(self._root / name))

    def move(self, name: str, place: str) -> None:
        """Put a file of the root in the place of another one."""
        try:
            os.rename(self._root / name, self._root / place)
        except FileNotFoundError as error:
            raise ObjectMissingError(f"{self._root / name} does not exist") from error
        except OSError as error:
            raise StorageError(f"{self._root / name} cannot be renamed: {error.strerror}") from error

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the write lock."""
        return self._locks.exclusive()

    def using(self, *, patience: float) -> AbstractContextManager[None]:
        """Keep objects from being collected."""
        return self._locks.using(patience=patience)

    def collections(self) -> str:
        """Return an empty text: whoever uses objects here is waited for."""
        return ""

    def collecting(self, *, patience: float) -> AbstractContextManager[None]:
        """Keep others from using objects."""
        return self._locks.collecting(patience=patience)

    def _temporary(self) -> str:
        return os.path.join(self._root, TRANSACTION_DIRECTORY, secrets.token_hex(8))


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _is_whole(path: str, size: int) -> bool:
    """Whether an object is there. A power failure before a flush can leave a shorter one, which is put anew."""
    try:
        return os.stat(path).st_size == size
    except FileNotFoundError:
        return False


def _write_new(path: str, content: Buffer, *, sync: bool = False) -> None:
    descriptor = os.open(path, _NEW, _MODE)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error
