"""The repository that the real server wrote, with what the real client shows of it (tests/fixtures/cvmfs-golden)."""

import base64
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from services.repository.native.reader.entries import Entry
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.revision import Revision
from services.repository.native.reader.source import Source
from tests.support.cvmfs_client import expand

__all__ = ["GOLDEN", "GOLDEN_KEY", "GOLDEN_NAME", "Open", "client_view", "expected"]

GOLDEN: Final = Path(__file__).parents[1] / "fixtures" / "cvmfs-golden"
GOLDEN_NAME: Final = "golden.example.org"
GOLDEN_KEY: Final = (GOLDEN / f"{GOLDEN_NAME}.pub").read_bytes()

_TYPES: Final = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
_OVERFLOW_ID: Final = 65534
_NO_ID: Final = (1 << 32) - 1


class Open(Protocol):
    """Opens a reader that a fixture closes."""

    def __call__(self, source: Source | Path = GOLDEN) -> RepositoryReader:
        """Open it."""


def expected(name: str) -> dict[bytes, dict[str, Any]]:
    """Return what the client shows, by path; `name` is `expected` or `expected-v1`."""
    document = json.loads((GOLDEN / f"{name}.json").read_text())
    return {base64.b64decode(entry["path_b64"]): entry for entry in document["paths"]}


def client_view(revision: Revision) -> dict[bytes, dict[str, Any]]:
    """Return what a client shows of all that a reader has found, in the form of `expected`."""
    entries = list(revision.walk())
    groups = _groups(entries)
    return {entry.path or b"/": _view(entry, revision, groups) for entry in entries}


def _groups(entries: Iterable[Entry]) -> Mapping[int, int]:
    """Number the groups of hard links in the order in which a listing meets them.

    All groups of this repository are in one catalog.
    """
    met: dict[int, int] = {}
    for entry in entries:
        if entry.group:
            met.setdefault(entry.group, len(met) + 1)
    return met


def _view(entry: Entry, revision: Revision, groups: Mapping[int, int]) -> dict[str, Any]:
    path = entry.path or b"/"
    target = expand(entry.target) if entry.is_symlink else None
    view: dict[str, Any] = {
        "path": os.fsdecode(path),
        "path_b64": base64.b64encode(path).decode(),
        "type": _TYPES[stat.S_IFMT(entry.mode)],
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": _OVERFLOW_ID if entry.uid == _NO_ID else entry.uid,
        "gid": _OVERFLOW_ID if entry.gid == _NO_ID else entry.gid,
        "mtime": entry.mtime,
        "mtime_ns": entry.mtime_ns,
        "nlink": entry.links,
        "hardlink_group": groups.get(entry.group),
        "size": 0 if entry.is_device else entry.size if target is None else len(target),
        "rdev": [os.major(entry.size), os.minor(entry.size)] if entry.is_device else None,
        "target": None if target is None else os.fsdecode(target),
        "target_b64": None if target is None else base64.b64encode(target).decode(),
        "sha256": _sha256(revision, entry) if entry.is_file else None,
    }
    return view | _xattrs(entry)


def _sha256(revision: Revision, entry: Entry) -> str:
    content = hashlib.sha256()
    for piece in revision.content(entry):
        content.update(piece)
    return content.hexdigest()


def _xattrs(entry: Entry) -> dict[str, Any]:
    """Show attributes as the client does, which has one of its own name and cannot read some."""
    readable = {name: value for name, value in entry.xattrs.items() if b"@" not in name and b"~" not in name}
    if b"user.hash" in readable:
        readable[b"user.hash"] = str(entry.hash).encode()
    unreadable = sorted(os.fsdecode(name) for name in entry.xattrs if name not in readable)
    return {
        "xattrs": {os.fsdecode(name): base64.b64encode(value).decode() for name, value in readable.items()},
        **({"xattrs_listed_but_unreadable": unreadable} if unreadable else {}),
    }
