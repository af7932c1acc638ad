"""What is mounted where, in the mount namespaces of all processes; see proc_pid_mountinfo(5)."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

__all__ = ["Mount", "Namespace", "namespaces", "own_mounts"]

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of a mount table."""

    number: str
    """Its own number: no two mounts have the same, in whatever namespaces they are."""
    device: str
    """Number of the file system: two mounts of the same one have the same."""
    point: str
    kind: str
    """Type of the file system."""
    peers: frozenset[str]
    """Groups that the mount belongs to or follows: what is unmounted in one of them is unmounted here."""
    lower: tuple[str, ...]
    """Of an overlay, its lower directories as they were named when it was mounted."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A mount namespace, and one of the processes in it."""

    process: int
    command: str
    mounts: tuple[Mount, ...]


def own_mounts() -> tuple[Mount, ...]:
    """Return the mount table of this process."""
    return _read("self")


def namespaces() -> Iterator[Namespace]:
    """List the mount namespaces of all processes but this one's.

    Which namespace a process is in is told by the number of its first mount: to read its name takes the right to debug
    the process.
    """
    known = {mount.number for mount in own_mounts()}
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError, StopIteration):  # it has ended
            with _table(process) as table:
                if next(table).partition(" ")[0] in known:
                    continue
            mounts = _read(process)
            known.update(mount.number for mount in mounts)
            yield Namespace(int(process), Path(f"/proc/{process}/comm").read_text(errors="replace").strip(), mounts)


def _table(process: str) -> TextIO:
    return open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape")


def _read(process: str) -> tuple[Mount, ...]:
    with _table(process) as table:
        return tuple(map(_parse, table))


def _parse(line: str) -> Mount:
    fields = line.split()
    end = fields.index("-", 6)
    kind, options = fields[end + 1], fields[end + 3]
    return Mount(
        number=fields[0],
        device=fields[2],
        point=_plain(fields[4]),
        kind=kind,
        peers=frozenset(field.partition(":")[2] for field in fields[6:end] if field.startswith(("shared:", "master:"))),
        lower=tuple(_lower_directories(options)) if kind == "overlay" else (),
    )


def _lower_directories(options: str) -> Iterator[str]:
    for option in options.split(","):
        name, _, value = option.partition("=")
        if name in ("lowerdir", "lowerdir+"):
            yield from filter(None, map(_plain, value.split(":")))


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
