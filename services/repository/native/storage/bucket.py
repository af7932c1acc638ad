"""A repository in an S3 bucket, which clients read straight from there.

Objects are written into a local *staging* directory first, as quickly as into a repository in a directory, and `flush`
uploads what is there, many at a time: content before the catalogs that name it. A killed process leaves them staged,
and the next `flush` goes on with them. The manifest and the other files of the root go up by themselves, whole.

All requests are made by `services.common.object_store`, which signs and repeats them.
"""

import contextlib
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Self, TypeVar

from services.common.cores import usable_cores
from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import ObjectMissingError as NoSuchObjectError
from services.common.object_store.errors import ObjectStoreError
from services.common.object_store.small import SmallPuts
from services.repository.native.errors import ObjectMissingError, StorageError
from services.repository.native.records import TRANSACTION_DIRECTORY, ObjectKind
from services.repository.native.storage.collected import CollectionRecord
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.fenced import FencedRequests
from services.repository.native.storage.holder import holder_name
from services.repository.native.storage.interface import NewObject, StoredObject
from services.repository.native.storage.lease import LEASE_FILE, Lease
from services.repository.native.storage.locks import RepositoryLocks
from services.repository.native.storage.loop import LoopThread
from services.repository.native.storage.reads import Reads
from services.repository.native.storage.settings import RepositoryStoreSettings
from services.repository.native.storage.uploads import Uploads

__all__ = ["BucketStorage"]

_Result = TypeVar("_Result")

_STAGING: Final = "staging"
"""Directory of the state in which objects wait for their upload."""
_IN_MEMORY: Final = 4 << 20
"""Smaller files are fetched without a temporary file, in bytes."""
_METADATA: Final = (ObjectKind.CATALOG, ObjectKind.HISTORY, ObjectKind.CERTIFICATE, ObjectKind.META)
"""Letters of the objects that describe others."""
_PATIENCE: Final = 5.0
"""How much longer than its time somebody else's lease is waited for, in seconds."""


class BucketStorage:
    """One bucket, or a part of it (blocking; threads may share it). Made by `connect`.

    Parameters
    ----------
    bucket
        The bucket.
    prefix
        What the keys begin with.
    loop
        Where requests are made.
    uploads
        Brings what is staged into the bucket.
    lease
        Keeps other machines out.
    fenced
        Makes the requests under the lease.
    state
        A directory of the publisher for this repository; it holds the staging directory and the locks.
    """

    def __init__(
        self,
        *,
        bucket: Bucket,
        prefix: str,
        loop: LoopThread,
        uploads: Uploads,
        lease: Lease,
        fenced: FencedRequests,
        state: Path,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._loop = loop
        self._uploads = uploads
        self._lease = lease
        self._fenced = fenced
        self._reads = Reads(bucket=bucket, prefix=prefix)
        self._collected = CollectionRecord(fenced)
        self._collecting = False
        self._put: set[str] = set()
        """Paths of what has been put and not been flushed."""
        self._put_lock = threading.Lock()
        self._staging = DirectoryStorage(state / _STAGING)
        self._locks = RepositoryLocks(state, place=str(self))

    @classmethod
    @contextmanager
    def connect(cls, settings: RepositoryStoreSettings, state: Path) -> Iterator[Self]:
        """Connect to the bucket.

        Parameters
        ----------
        settings
            Where it is.
        state
            A directory that is made if it is not there. Two publishers of one repository must not have the same, and
            the commands for a repository must have its publisher's.

        Raises
        ------
        StorageError
            The directory cannot be used.
        """
        try:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            holder = holder_name(state / "holder")
        except OSError as error:
            raise StorageError(f"{state} cannot be used: {error.strerror}") from error
        with ExitStack() as stack:
            threads = stack.enter_context(ThreadPoolExecutor(usable_cores(), "repository-store"))
            loop = stack.enter_context(LoopThread("repository-store"))
            connection = Bucket.open(settings)
            bucket = loop.call(connection.__aenter__())
            stack.callback(lambda: loop.call(connection.__aexit__(None, None, None)))
            sender = SmallPuts.open(bucket)
            small = loop.call(sender.__aenter__())
            stack.callback(lambda: loop.call(sender.__aexit__(None, None, None)))
            uploads = Uploads(
                bucket=bucket, small=small, prefix=settings.prefix, staging=state / _STAGING, threads=threads
            )
            lease = Lease(
                bucket=bucket,
                key=settings.prefix + LEASE_FILE,
                holder=holder,
                seconds=settings.lease_seconds,
                patience=settings.lease_seconds + _PATIENCE,
                lock=state / ".lease-lock",
            )
            storage = cls(
                bucket=bucket,
                prefix=settings.prefix,
                loop=loop,
                uploads=uploads,
                lease=lease,
                fenced=FencedRequests(bucket=bucket, prefix=settings.prefix, lease=lease),
                state=state,
            )
            storage._staging.prepare()
            yield storage

    def __str__(self) -> str:
        place = str(self._bucket.place())
        return f"{self._prefix} in {place}" if self._prefix else place

    @property
    def local(self) -> Path:
        """Where objects may be written as files, to be uploaded by `flush`."""
        return self._staging.local

    @property
    def staged(self) -> bool:
        """Objects go to the bucket."""
        return True

    def prepare(self) -> None:
        """Make sure that the bucket is there."""
        self._call(lambda: self._bucket.request("head_bucket", doing="looking for"))

    def put(self, objects: Sequence[NewObject]) -> None:
        """Stage objects."""
        with self._put_lock:
            self._put.update(new.path for new in objects)
        self._staging.put(objects)

    def put_file(self, path: str, source: Path) -> None:
        """Stage an object."""
        self._staging.put_file(path, source)

    def flush(self) -> None:
        """Upload everything that is staged; a catalog is uploaded after what had been staged before it."""
        try:
            # Catalogs first in time, last in order: what they name was staged before them, so it is found now or is
            # there.
            last = [path for path in self._uploads.staged() if _is_metadata(path)]
            first = [path for path in self._uploads.staged() if not _is_metadata(path)]
            for paths in (first, last):
                self._call(partial(self._uploads.upload, paths))
        except OSError as error:
            raise StorageError(f"what is staged for {self} cannot be uploaded: {error}") from error

    def flush_put(self) -> None:
        """Upload what has been put; layers that are being prepared are uploaded when they have been."""
        with self._put_lock:
            paths, self._put = self._put, set()
        try:
            self._call(lambda: self._uploads.upload(list(paths)))
        except OSError as error:
            raise StorageError(f"what is staged for {self} cannot be uploaded: {error}") from error

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        with self.open(path) as file:
            return file.read()

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for reading; it has been fetched whole by then, so that what breaks is repeated."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._staging.open(path))
            except ObjectMissingError:
                spooled = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the stack closes it
                file = stack.enter_context(spooled)
                self._call(lambda: self._reads.fetch(path, file))
                file.seek(0)
            yield file

    def size(self, path: str) -> int | None:
        """Return a file's size."""
        staged = self._staging.size(path)
        if staged is not None:
            return staged
        answer = self._head(path)
        return None if answer is None else int(answer["ContentLength"])

    def version(self, name: str) -> str | None:
        """Return what is another text once a file of the root has other content."""
        answer = self._head(name)
        return None if answer is None else str(answer["ETag"])

    def missing(self, paths: Sequence[str]) -> Sequence[str]:
        """Return those objects that are neither there nor staged."""
        return self._call(lambda: self._reads.missing([path for path in paths if self._staging.size(path) is None]))

    def _head(self, path: str) -> Mapping[str, Any] | None:
        try:
            return self._call(lambda: self._reads.head(path))
        except ObjectMissingError:
            self.prepare()  # a HEAD does not tell whether it is the object or the whole bucket that is missing
            return None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Return what the bucket holds below a prefix; what is only staged is not there yet.

        Temporary files are in the staging directory and never in the bucket.
        """
        if prefix.startswith(TRANSACTION_DIRECTORY):
            yield from self._staging.list(prefix)
            return
        page: dict[str, Any] = {}
        while True:
            answer = self._call(partial(self._reads.list_page, prefix, page))
            for item in answer.get("Contents", ()):
                path = item["Key"].removeprefix(self._prefix)
                yield StoredObject(path, item["Size"], item["LastModified"].timestamp())
            if not answer.get("IsTruncated"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects, by who holds the write lock or collects; temporary files may be deleted by everybody."""
        self._staging.delete(paths)
        stored = [path for path in paths if not path.startswith(TRANSACTION_DIRECTORY)]
        if stored:
            self._call(lambda: self._fenced.delete(stored))

    def replace(self, name: str, content: bytes) -> None:
        """Put a file of the root in place of what is there."""
        self._call(lambda: self._fenced.replace(name, content))

    def look(self, name: str) -> tuple[bytes, str]:
        """Return a file of the root, and its version."""
        return self._call(lambda: self._fenced.look(name))

    def exchange(self, name: str, content: bytes, former: str | None) -> str:
        """Put a file of the root in the place of a version of it."""
        return self._call(lambda: self._fenced.exchange(name, content, former))

    def move(self, name: str, place: str) -> None:
        """Put a file of the root in the place of another one."""
        self._call(lambda: self._fenced.copy(name, place))
        self.delete([name])

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the write lock."""
        with self._locks.exclusive(), self._leased():
            yield

    @contextmanager
    def using(self, *, patience: float) -> Iterator[None]:
        """Keep objects from being collected."""
        with self._locks.using(patience=patience):
            yield

    def collections(self) -> str:
        """Return what is another text once a collection of another machine may have deleted something."""
        held = self._lease.is_held and not self._collecting
        return self._call(self._collected.settle if held else self._collected.token)

    @contextmanager
    def collecting(self, *, patience: float) -> Iterator[None]:
        """Keep others from using objects."""
        with self._locks.collecting(patience=patience), self._leased():
            self._collecting = True
            try:
                self._call(lambda: self._collected.write(deleting=True))
                yield
                self._call(lambda: self._collected.write(deleting=False))
            finally:
                self._collecting = False

    @contextmanager
    def _leased(self) -> Iterator[None]:
        self._call(self._lease.enter)
        try:
            yield
        finally:
            self._call(self._lease.leave)

    def _call(self, request: Callable[[], Awaitable[_Result]]) -> _Result:
        async def work() -> _Result:
            return await request()

        try:
            return self._loop.call(work())
        except NoSuchObjectError as error:
            raise ObjectMissingError(_in_own_terms(error)) from error
        except ObjectStoreError as error:
            raise StorageError(_in_own_terms(error)) from error


def _is_metadata(path: str) -> bool:
    return path.endswith(_METADATA)


def _in_own_terms(error: ObjectStoreError) -> str:
    # The texts were written for the bucket of layers, whose settings have another prefix.
    return str(error).replace("LAYER_STORE_", "REPOSITORY_STORE_")
