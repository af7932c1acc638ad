"""The stand-in for the client against what the real client shows, as programs see both: by lstat and its like."""

import base64
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from tests.support.cvmfs_client import ClientView
from tests.support.golden import Open, expected

_OF_THE_FILE_SYSTEM = {"user.with@at", "user.with~tilde", "user.hash"}
"""Attributes that the real client does not show as they are stored."""


def _seen(root: Path) -> dict[bytes, dict[str, Any]]:
    top = os.fsencode(root)
    paths = [b"/"]
    for directory, directories, files in os.walk(top):
        paths += [os.path.join(directory, name)[len(top) :] for name in (*directories, *files)]
    return {path: _look(top + path) for path in paths}


def _look(path: bytes) -> dict[str, Any]:
    found = os.lstat(path)
    directory, device = stat.S_ISDIR(found.st_mode), stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)
    return {
        "type": stat.S_IFMT(found.st_mode),
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid,
        "gid": found.st_gid,
        "mtime": found.st_mtime_ns // 1_000_000_000,
        "mtime_ns": found.st_mtime_ns % 1_000_000_000,
        "nlink": None if directory else found.st_nlink,
        "size": None if directory else found.st_size,
        "rdev": [os.major(found.st_rdev), os.minor(found.st_rdev)] if device else None,
        "target": os.readlink(path) if stat.S_ISLNK(found.st_mode) else None,
        "sha256": hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
        if stat.S_ISREG(found.st_mode)
        else None,
        "xattrs": {
            name: base64.b64encode(os.getxattr(path, name, follow_symlinks=False)).decode()
            for name in os.listxattr(path, follow_symlinks=False)
            if name not in _OF_THE_FILE_SYSTEM
        },
    }


_TYPES = {
    "dir": stat.S_IFDIR,
    "file": stat.S_IFREG,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}


def _real(name: str) -> dict[bytes, dict[str, Any]]:
    return {path: _as_seen(entry) for path, entry in expected(name).items()}


def _as_seen(entry: dict[str, Any]) -> dict[str, Any]:
    directory = entry["type"] == "dir"
    return {
        "type": _TYPES[entry["type"]],
        **{key: entry[key] for key in ("mode", "uid", "gid", "mtime", "mtime_ns", "rdev", "sha256")},
        "nlink": None if directory else entry["nlink"],
        "size": None if directory else entry["size"],
        "target": None if entry["target_b64"] is None else base64.b64decode(entry["target_b64"]),
        "xattrs": {name: value for name, value in entry["xattrs"].items() if name not in _OF_THE_FILE_SYSTEM},
    }


def test_it_shows_what_the_real_client_shows(open_golden: Open, tmp_path: Path) -> None:
    view = ClientView(open_golden(), tmp_path / "golden")
    view.update()
    assert view.revision == 7
    assert _seen(tmp_path / "golden") == _real("expected")


def test_members_of_a_group_of_hard_links_are_one_file(open_golden: Open, tmp_path: Path) -> None:
    ClientView(open_golden(), tmp_path / "golden").update()
    inodes = {os.lstat(tmp_path / "golden/hardlinks/a" / name).st_ino for name in ("one", "two", "three")}
    assert len(inodes) == 1


def test_a_directory_is_brought_from_one_revision_to_the_next(open_golden: Open, tmp_path: Path) -> None:
    reader = open_golden()
    view = ClientView(reader, tmp_path / "golden")
    view.show(reader.tagged(reader.head(), "v1"))
    assert _seen(tmp_path / "golden") == _real("expected-v1")
    unchanged = os.stat(tmp_path / "golden/ingested/d/file").st_ino
    view.update()
    assert _seen(tmp_path / "golden") == _real("expected")
    assert os.stat(tmp_path / "golden/ingested/d/file").st_ino == unchanged
