"""What is mounted where, in the mount namespaces of all processes; see proc_pid_mountinfo(5)."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mount", "Namespace", "namespaces", "own_mounts"]

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of a mount table."""

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
    """List the mount namespaces of all processes that can be seen but this one's."""
    known = {os.readlink("/proc/self/ns/mnt")}
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended, or must not be looked at
            namespace = os.readlink(f"/proc/{process}/ns/mnt")
            if namespace not in known:
                mounts = _read(process)
                known.add(namespace)
                yield Namespace(int(process), Path(f"/proc/{process}/comm").read_text(errors="replace").strip(), mounts)


def _read(process: str) -> tuple[Mount, ...]:
    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return tuple(map(_parse, table))


def _parse(line: str) -> Mount:
    fields = line.split()
    end = fields.index("-", 6)
    kind, options = fields[end + 1], fields[end + 3]
    return Mount(
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
