"""Complete comparison of file trees: everything that a container can see of its file system.

A tree is read from a directory, which for a running container is `/proc/PID/root` under any storage driver. Two trees
are equal when type, mode, owner, size, modification time, link groups, device numbers, extended attributes, contents
and link targets are. (`docker export` would not do: its tar has whole seconds only and no extended attributes.)
"""

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

__all__ = ["CONTAINER_EXCLUSIONS", "Entry", "Exclusions", "Tree", "differences", "read_directory"]

_BLOCK: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of a tree, as far as a comparison looks."""

    kind: str
    """`file`, `directory`, `symlink`, `character device`, `block device`, `fifo` or `socket`."""
    mode: int
    """Permission bits, setuid, setgid and sticky included."""
    uid: int
    gid: int
    mtime: int | None
    """Modification time in ns since the epoch; None where it is not compared."""
    size: int | None = None
    """Size of a regular file, in bytes."""
    rdev: tuple[int, int] | None = None
    """Major and minor number of a device."""
    target: bytes | None = None
    """What a symbolic link says."""
    sha256: str | None = None
    """Hash of a regular file's content."""
    links: tuple[bytes, ...] = ()
    """Every path of the file, where it has several in the tree."""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    """Extended attributes."""


Tree = dict[bytes, Entry]
"""Entries by their path relative to the root; the root itself is `b"."`."""


@dataclass(frozen=True, kw_only=True)
class Exclusions:
    """What is left out of a comparison, each for a reason that its definition gives."""

    paths: frozenset[bytes] = frozenset()
    """Paths that are left out with everything below them."""
    contents: frozenset[bytes] = frozenset()
    """Directories that are compared without anything below them."""
    times: frozenset[bytes] = frozenset()
    """Paths whose modification time is not compared."""
    xattrs: frozenset[str] = frozenset()
    """Names of extended attributes that are not compared."""


CONTAINER_EXCLUSIONS: Final = Exclusions(
    # Docker makes or mounts these anew for every container.
    paths=frozenset({b".dockerenv", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf", b"etc/mtab"}),
    # Kernel file systems, mounted anew for every container.
    contents=frozenset({b"dev", b"proc", b"sys"}),
    # The directories that Docker makes the above in, and the roots of those mounts.
    times=frozenset({b".", b"dev", b"etc", b"proc", b"sys"}),
    # The machine's label of the mount, not the file's.
    xattrs=frozenset({"security.selinux"}),
)
"""What differs between two containers of one image under any storage driver."""


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symlink",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
        stat.S_IFIFO: "fifo",
        stat.S_IFSOCK: "socket",
    }
    return kinds[stat.S_IFMT(mode)]


def _hash(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _join(parent: bytes, name: bytes) -> bytes:
    return name if parent == b"." else parent + b"/" + name


class _DirectoryReader:
    """Reads a tree by directory descriptors, since paths in it may be longer than the kernel takes."""

    def __init__(self, exclusions: Exclusions) -> None:
        self.tree: Tree = {}
        self.exclusions = exclusions
        self._links: dict[tuple[int, int], list[bytes]] = {}

    def read(self, root: Path) -> Tree:
        # The root may be a magic link, /proc/PID/root, so this one is followed.
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._add(b".", os.fstat(descriptor), self._xattrs_of_descriptor(descriptor))
            self._descend(descriptor, b".")
        finally:
            os.close(descriptor)
        for paths in self._links.values():
            if len(paths) > 1:
                group = tuple(sorted(paths))
                for path in group:
                    self.tree[path] = dataclasses.replace(self.tree[path], links=group)
        return self.tree

    def _descend(self, descriptor: int, parent: bytes) -> None:
        if parent in self.exclusions.contents:
            return
        for name in sorted(map(os.fsencode, os.listdir(descriptor))):
            path = _join(parent, name)
            if path not in self.exclusions.paths:
                self._visit(descriptor, name, path)

    def _visit(self, parent: int, name: bytes, path: bytes) -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                self._add(path, status, self._xattrs_of_descriptor(descriptor))
                self._descend(descriptor, path)
            finally:
                os.close(descriptor)
        elif stat.S_ISREG(status.st_mode):
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent), "rb") as file:
                xattrs = self._xattrs_of_descriptor(file.fileno())
                self._add(path, status, xattrs, size=status.st_size, sha256=_hash(file))
        else:
            # Opening a device or a fifo would act on it: its attributes are read through its directory's descriptor.
            where = os.fsencode(f"/proc/self/fd/{parent}/") + name
            xattrs = {key: os.getxattr(where, key, follow_symlinks=False) for key in self._listed(where)}
            device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
            self._add(
                path,
                status,
                xattrs,
                rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)) if device else None,
                target=os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else None,
            )
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            self._links.setdefault((status.st_dev, status.st_ino), []).append(path)

    def _listed(self, where: bytes) -> Iterator[str]:
        return (key for key in os.listxattr(where, follow_symlinks=False) if key not in self.exclusions.xattrs)

    def _xattrs_of_descriptor(self, descriptor: int) -> dict[str, bytes]:
        return {
            key: os.getxattr(descriptor, key) for key in os.listxattr(descriptor) if key not in self.exclusions.xattrs
        }

    def _add(
        self,
        path: bytes,
        status: os.stat_result,
        xattrs: dict[str, bytes],
        *,
        size: int | None = None,
        sha256: str | None = None,
        rdev: tuple[int, int] | None = None,
        target: bytes | None = None,
    ) -> None:
        self.tree[path] = Entry(
            kind=_kind(status.st_mode),
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime=None if path in self.exclusions.times else status.st_mtime_ns,
            size=size,
            rdev=rdev,
            target=target,
            sha256=sha256,
            xattrs=xattrs,
        )


def read_directory(root: Path, *, exclusions: Exclusions = Exclusions()) -> Tree:
    """Describe the tree below a directory, the directory included.

    Raises
    ------
    OSError
        A part of it cannot be read, or changed while it was read.
    """
    return _DirectoryReader(exclusions).read(root)


def _show(name: str, value: object) -> str:
    if name == "mode" and isinstance(value, int):
        return f"{value:04o}"
    if name == "mtime" and isinstance(value, int):
        return f"{value // 10**9}.{value % 10**9:09d}"
    return repr(value)


def differences(left: Tree, right: Tree, *, names: tuple[str, str] = ("left", "right")) -> list[str]:
    """Say how two trees differ, one line for each attribute of each path, in path order; equal trees give none."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        shown = os.fsdecode(path).encode("unicode_escape").decode()
        one, other = left.get(path), right.get(path)
        if one is None or other is None:
            present = one or other
            assert present is not None  # noqa: S101 - the path comes from one of the two
            lines.append(f"{shown}: a {present.kind} in {names[0] if one else names[1]} only")
            continue
        for attribute in dataclasses.fields(Entry):
            values = getattr(one, attribute.name), getattr(other, attribute.name)
            if values[0] != values[1]:
                texts = [_show(attribute.name, value) for value in values]
                lines.append(f"{shown}: {attribute.name} {texts[0]} in {names[0]}, {texts[1]} in {names[1]}")
    return lines
