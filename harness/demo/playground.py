"""A small layer, published on top of the image, that has something of each kind to change; and the changes.

`python -m harness.demo.playground PID NOTE SIZE` makes the changes in the file system of the container whose process is
PID, with a note in a new file, and a large file of so many bytes. It comes from outside, by chroot, so that any image
will do, whatever programs it has.
"""

import io
import os
import shutil
import stat
import struct
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

__all__ = ["changes", "make_changes", "write_playground"]

_TOP: Final = "playground"

_BEFORE: Final = 1_600_000_000
"""Modification time of everything in the layer, in seconds."""

_AFTER: Final = 1_700_000_000_123_456_789
"""Modification time of what the changes touch, in ns: sub-second times are to be kept."""

_FILES: Final = {
    "edited": 0o644,
    "deleted": 0o644,
    "directory-deleted/file": 0o644,
    "directory-deleted/inner/file": 0o644,
    "directory-renewed/old": 0o644,
    "directory-renewed/kept-name": 0o644,
    "directory-to-file/old": 0o644,
    "file-to-directory": 0o644,
    "file-to-symlink": 0o644,
    "made-private": 0o644,
    "given-away": 0o644,
    "made-setuid": 0o755,
    "linked": 0o644,
    "renamed": 0o600,
    "untouched/file": 0o640,
}
"""What the layer holds: path and mode."""


def write_playground(destination: Path) -> None:
    """Write the layer's tar."""
    directories = sorted({str(parent) for path in _FILES for parent in Path(path).parents})
    with tarfile.open(destination, "w") as archive:
        for directory in directories:
            member = tarfile.TarInfo(f"{_TOP}/{directory}")
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, _BEFORE
            archive.addfile(member)
        for path, mode in _FILES.items():
            content = f"{path} as it was published\n".encode() * 20
            member = tarfile.TarInfo(f"{_TOP}/{path}")
            member.size, member.mode, member.mtime = len(content), mode, _BEFORE
            archive.addfile(member, io.BytesIO(content))


def _write(name: str, content: bytes) -> None:
    with open(name, "wb") as file:
        file.write(content)


def _add(note: str) -> None:
    _write("added", f"{note}\n".encode())
    _write("empty", b"")
    os.makedirs("deep/" + "/".join("abcdefgh"))
    os.symlink("/playground/edited", "absolute-link")
    os.symlink("nowhere", "dangling-link")


def _edit() -> None:
    with open("edited", "ab") as file:
        file.write(b"and a line more\n")


def _delete_file() -> None:
    os.unlink("deleted")


def _delete_directory() -> None:
    shutil.rmtree("directory-deleted")


def _renew_directory() -> None:
    shutil.rmtree("directory-renewed")
    os.mkdir("directory-renewed", 0o700)
    _write("directory-renewed/kept-name", b"of the new directory\n")


def _directory_to_file() -> None:
    shutil.rmtree("directory-to-file")
    _write("directory-to-file", b"a file now\n")


def _file_to_others() -> None:
    os.unlink("file-to-directory")
    os.mkdir("file-to-directory")
    _write("file-to-directory/inside", b"")
    os.unlink("file-to-symlink")
    os.symlink("edited", "file-to-symlink")


def _change_modes() -> None:
    os.chmod("made-private", 0)
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)  # noqa: S103 - the mode is what is tested


def _change_owners() -> None:
    os.chown("given-away", 1000, 1000)
    _write("large-ids", b"")
    # Beyond what the octal field of a tar header holds.
    os.chown("large-ids", 3_000_000, 4_000_000_000)


def _make_setuid() -> None:
    os.chmod("made-setuid", 0o4755)  # noqa: S103 - the mode is what is tested
    _write("new-setgid", b"#!/bin/sh\n")
    os.chmod("new-setgid", 0o2755)  # noqa: S103 - the mode is what is tested


def _hard_links() -> None:
    os.link("linked", "linked-too")
    _write("pair-1", b"two names\n")
    os.link("pair-1", "pair-2")
    os.chmod("pair-1", 0o4711)  # noqa: S103 - the mode is what is tested


def _special_files() -> None:
    os.mknod("device", stat.S_IFCHR | 0o620, os.makedev(1, 3))
    os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(7, 300))
    os.mkfifo("fifo", 0o640)


def _attributes() -> None:
    _write("with-xattr", b"")
    os.setxattr("with-xattr", "user.origin", b"demo\0binary")
    _write("with-capability", b"")
    # struct vfs_cap_data, version 2, effective: cap_net_raw (linux/capability.h).
    os.setxattr("with-capability", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))


def _names() -> None:
    os.makedirs("grüße/世界")
    _write("grüße/世界/🐳", b"")
    _write("n" * 255, b"")
    _write(os.fsdecode(b"not-utf8-\xff\xfe"), b"")
    _write("line\nbreak and space ", b"")
    os.makedirs("/".join(["long" * 50] * 10))


def _rename() -> None:
    os.rename("renamed", "has-a-new-name")


def _sparse() -> None:
    with open("sparse", "wb") as file:
        file.seek(50 << 20)
        file.write(b"end")


def _times() -> None:
    for name, time in (("before-1970", -(10**18)), ("after-2038", 5 * 10**18)):
        _write(name, b"")
        os.utime(name, ns=(time, time))


def _large(size: int) -> None:
    random = Random(300)  # noqa: S311 - content, not a secret
    half = 500_000
    with open("large", "wb") as file:
        # Half of it compresses away, as in a real file.
        file.writelines(random.randbytes(half) + bytes(half) for _ in range(size // (2 * half)))


_CHANGES: Final[dict[str, Callable[[], None]]] = {
    "edits a file": _edit,
    "deletes a file": _delete_file,
    "deletes a directory": _delete_directory,
    "replaces a directory by a new one": _renew_directory,
    "replaces a directory by a file": _directory_to_file,
    "replaces files by a directory and a symbolic link": _file_to_others,
    "changes modes": _change_modes,
    "changes owners": _change_owners,
    "makes files setuid and setgid": _make_setuid,
    "makes hard links": _hard_links,
    "makes devices and a fifo": _special_files,
    "sets an extended attribute and a file capability": _attributes,
    "uses unicode, non-UTF-8 and long names": _names,
    "renames a file": _rename,
    "writes a sparse file": _sparse,
    "uses times before 1970 and after 2038": _times,
}


def changes(*, note: str, large: int) -> dict[str, Callable[[], None]]:
    """Return what is done in the container, in order, each by its name.

    Parameters
    ----------
    note
        What a new file says, so that layers of the same changes are not the same.
    large
        Size of the large file, in bytes; millions.
    """
    return {
        "adds files, directories, symbolic links": partial(_add, note),
        f"writes a file of {large // 1_000_000} MB": partial(_large, large),
        **_CHANGES,
    }


def make_changes(pid: int, *, note: str, large: int) -> None:
    """Enter the file system of the container whose process has this number, and make the changes."""
    os.chroot(f"/proc/{pid}/root")
    os.chdir(f"/{_TOP}")
    os.umask(0o022)
    for change in changes(note=note, large=large).values():
        change()
    _settle_times(frozenset({"./before-1970", "./after-2038"}))


def _settle_times(untouched: frozenset[str]) -> None:
    """Give everything that the changes touched one and the same time, whenever they are made."""
    for directory, directories, files in os.walk(".", topdown=False):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            if path not in untouched and os.lstat(path).st_mtime_ns > _BEFORE * 10**9:
                os.utime(path, ns=(_AFTER, _AFTER), follow_symlinks=False)
    os.utime(".", ns=(_AFTER, _AFTER))


if __name__ == "__main__":
    make_changes(int(sys.argv[1]), note=sys.argv[2], large=int(sys.argv[3]))
