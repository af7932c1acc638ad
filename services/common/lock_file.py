"""A file that one process at a time holds, and that says which: for directories that no two publishers may share.

The kernel lets it go when the process ends, however it does; programs that it has started do not keep it.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.errors import SuiteError

__all__ = ["LOCK_FILE", "LockError", "locked"]

LOCK_FILE: Final = ".publisher-lock"
"""Name of the file in a directory that a publisher has for itself."""

_HOLDER: Final = re.compile(rb"([0-9]{1,10}) ([!-~]{1,255})\n")


class LockError(SuiteError):
    """A lock file is held by another process, or cannot be used."""


@contextmanager
def locked(path: Path, *, otherwise: str) -> Iterator[None]:
    """Hold a file, which is made where it is not there, until the context or the process ends; nobody is waited for.

    Parameters
    ----------
    path
        The file; its directory exists.
    otherwise
        What is the case where somebody else holds it, for the error: `another publisher writes to ...`.

    Raises
    ------
    LockError
        Another process holds it, which the text names; or it cannot be used.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LockError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        _take(descriptor, path, otherwise)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, otherwise: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)
    except BlockingIOError:
        raise LockError(f"{otherwise}: stop it first ({_holder(descriptor, path)})") from None
    except OSError as error:
        raise LockError(f"{path} cannot be locked: {error.strerror}") from error


def _holder(descriptor: int, path: Path) -> str:
    holder = _HOLDER.fullmatch(os.pread(descriptor, 512, 0))
    if holder is None:
        return f"it holds {path}"  # and has not written down yet who it is
    number, host = (part.decode("ascii") for part in holder.groups())
    return f"process {number} on {host} holds {path}"
