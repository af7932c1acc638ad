"""Where the client of a mounted repository listens for commands: a socket in its working directory (blocking).

A client says by the attribute `user.pid` of its mount which process it is, and works in its workspace, the directory of
its cache as a rule, where it makes the socket (CernVM-FS, cvmfs/mountpoint.cc). Where its working directory may not be
seen, which takes CAP_SYS_PTRACE for a process of another user, the options that it was started with may name the
configuration that has it.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.repository_name import RepositoryName

__all__ = ["Client", "find_client", "first_socket", "workspaces"]

_PID: Final = "user.pid"
_OPTION = re.compile(r"(?:^|,)config=([^,]+)")
_SETTING = re.compile(r"""^\s*(CVMFS_(?:WORKSPACE|CACHE_DIR|CACHE_BASE))=(["']?)([^"'#\s]+)\2""", re.MULTILINE)
_CONFIGURATION_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Client:
    """What serves a repository."""

    pid: int
    """Number of its process, which may be one of another PID namespace."""
    socket: Path | None
    """Where it listens; None where that cannot be found."""


def find_client(root: Path, name: RepositoryName) -> Client | None:
    """Find the client that serves a repository; None if that is no client of CVMFS.

    Parameters
    ----------
    root
        Where the repository is mounted.
    """
    if (pid := _pid(root)) is None:
        return None
    return Client(pid, first_socket((Path(f"/proc/{pid}/cwd"), *_configured(pid, name)), name))


def first_socket(directories: Iterable[Path], name: RepositoryName) -> Path | None:
    """Return the socket of a repository's client in the first directory that has one."""
    return next(filter(_is_socket, (directory / f"cvmfs_io.{name}" for directory in directories)), None)


def workspaces(base: Path, name: RepositoryName) -> tuple[Path, Path]:
    """Return where a client works below the directory of caches: by whether repositories share one, the default."""
    return base / "shared", base / name


def _pid(root: Path) -> int | None:
    try:
        return int(os.getxattr(root / ".", _PID))
    except (OSError, ValueError):
        # What is there is no client of CVMFS, or is of no use at all, which who looks for a layer finds out.
        return None


def _configured(pid: int, name: RepositoryName) -> Iterator[Path]:
    try:
        arguments = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return
    for argument in arguments:
        for files in _OPTION.findall(argument):
            for file in files.split(":"):
                yield from _configured_by(Path(file), name)


def _configured_by(configuration: Path, name: RepositoryName) -> Iterator[Path]:
    try:
        with configuration.open(errors="replace") as file:
            content = file.read(_CONFIGURATION_LIMIT)
    except OSError:
        return
    for setting, _, value in _SETTING.findall(content):
        if setting == "CVMFS_CACHE_BASE":
            yield from workspaces(Path(value), name)
        else:
            yield Path(value)


def _is_socket(place: Path) -> bool:
    try:
        return place.is_socket()
    except PermissionError:
        return False
