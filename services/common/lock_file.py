"""A file or directory that one process at a time holds: for what no two publishers may share.

A file says which process that is. Of a directory, in which nothing is written, the kernel says it, unless the process
is in another container. The kernel lets it go when the process ends, however it does; programs that it has started do
not keep it.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.errors import SuiteError

__all__ = ["LOCK_FILE", "LockError", "locked", "locked_directory"]

LOCK_FILE: Final = ".publisher-lock"
"""Name of the file in a directory that a publisher has for itself."""

_LOCKS: Final = Path("/proc/locks")
_FLOCK: Final = re.compile(r"\d+: FLOCK +ADVISORY +WRITE +(?P<process>\d+) +[0-9a-f]+:[0-9a-f]+:(?P<inode>\d+) +0 +EOF")
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
    with _open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW) as descriptor:
        _take(descriptor, path, otherwise, _written_holder)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)
        except OSError as error:
            raise LockError(f"{path} cannot be written: {error.strerror}") from error
        yield


@contextmanager
def locked_directory(path: Path, *, otherwise: str) -> Iterator[None]:
    """Hold a directory, which exists; otherwise as `locked`."""
    with _open(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        _take(descriptor, path, otherwise, _known_holder)
        yield


@contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LockError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, otherwise: str, holder: Callable[[int], str]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockError(f"{otherwise}: stop it first ({holder(descriptor)} holds {path})") from None
    except OSError as error:
        raise LockError(f"{path} cannot be locked: {error.strerror}") from error


def _written_holder(descriptor: int) -> str:
    holder = _HOLDER.fullmatch(os.pread(descriptor, 512, 0))
    if holder is None:
        return "it"  # has not written down yet who it is
    number, host = (part.decode("ascii") for part in holder.groups())
    return f"process {number} on {host}"


def _known_holder(descriptor: int) -> str:
    inode = os.fstat(descriptor).st_ino
    for line in _LOCKS.read_text("ascii").splitlines():
        match = _FLOCK.fullmatch(line)
        if match is not None and int(match["inode"]) == inode:
            return f"process {match['process']} on {os.uname().nodename}"
    return "it"
