"""The one choice of where a repository is: in a directory, or in the bucket that the environment names."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import Storage
from services.repository.native.storage.settings import RepositoryStoreSettings

__all__ = ["open_storage"]


@contextmanager
def open_storage(directory: Path | None, *, state: Path | None) -> Iterator[Storage]:
    """Open the storage of a repository.

    Parameters
    ----------
    directory
        Its root; without it the repository is in the bucket of the settings `REPOSITORY_STORE_*`.
    state
        What the publisher keeps of a repository in a bucket. Who only reads gives none, and sees what clients see: not
        what has been staged there and is not uploaded yet.

    Raises
    ------
    InvalidValueError
        A setting of the bucket is wrong.
    StorageError
        The state directory cannot be used.
    """
    if directory is not None:
        yield DirectoryStorage(directory)
    elif state is not None:
        with BucketStorage.connect(RepositoryStoreSettings.load(), state) as storage:
            yield storage
    else:
        with (
            tempfile.TemporaryDirectory(prefix="thin-repository-") as temporary,
            BucketStorage.connect(RepositoryStoreSettings.load(), Path(temporary)) as storage,
        ):
            yield storage
