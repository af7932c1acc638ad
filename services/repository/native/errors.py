"""Errors of native repositories.

Tree::

    RepositoryError
    └── NativeError
        ├── StorageError            the directory or bucket failed, for a reason that may pass
        │   └── ObjectMissingError  it does not hold what was asked for
        ├── RepositoryBusyError     another process writes to the repository
        │   └── OvertakenError      another one has gone on while this one did not
        ├── RepositoryExistsError   there is a repository where one was to be made
        ├── TagError                a tag is there already, or is not, or names no revision
        └── BrokenRepositoryError   what is stored is not what the format, or a hash that names it, says
"""

from services.repository.errors import RepositoryError

__all__ = [
    "BrokenRepositoryError",
    "NativeError",
    "ObjectMissingError",
    "OvertakenError",
    "RepositoryBusyError",
    "RepositoryExistsError",
    "StorageError",
    "TagError",
]


class NativeError(RepositoryError):
    """Base of the errors of native repositories."""


class StorageError(NativeError):
    """The directory or the bucket failed; the text names the object and the reason."""


class ObjectMissingError(StorageError):
    """The storage does not hold what was asked for."""


class RepositoryBusyError(NativeError):
    """Another process writes to the repository."""


class OvertakenError(RepositoryBusyError):
    """Another publisher has changed the repository meanwhile, or may have: what was begun is given up."""


class RepositoryExistsError(NativeError):
    """There is a repository where one was to be made."""


class BrokenRepositoryError(NativeError):
    """What is stored is not what the format, or a hash that names it, says."""


class TagError(NativeError):
    """A tag is there already, or is not, or names no revision."""
