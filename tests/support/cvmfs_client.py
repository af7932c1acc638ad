"""A stand-in for the CVMFS client of a native repository: shows it as a directory, by means of the suite's reader.

The real client needs FUSE and is not part of the test environment. This one follows the repository's head, verifies it
as clients do, and brings a directory up to date with every new revision. What a client was measured to do is done:
whiteouts are 0:0 devices, attributes are there, members of a group of hard links are one file, variables in targets are
expanded, hidden entries are not there. Unlike with a client, files are all fetched at once, and the file system is that
of the directory, so that names may be long and unions need no other layer.
"""

import asyncio
import os
import re
import shutil
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.repository.native.reader.entries import Entry
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.revision import Revision
from services.repository.native.records import EntryFlag

__all__ = ["ClientView", "expand", "follow"]

_POLL: Final = 0.01
"""Seconds between two looks at the head; a real client looks as often as the revision says."""
_VARIABLE: Final = re.compile(rb"\$\([A-Z_a-z0-9]+(?::-([^)]*))?\)")
_OVERFLOW_ID: Final = 65534
_NO_ID: Final = (1 << 32) - 1


def expand(target: bytes) -> bytes:
    """Return what a client shows of a link's target, where no variable is set."""
    return _VARIABLE.sub(rb"\1", target)


class ClientView:
    """A directory that shows the newest revision of a repository (blocking; needs root).

    Parameters
    ----------
    reader
        Reads the repository.
    root
        The directory; its parent exists.
    """

    def __init__(self, reader: RepositoryReader, root: Path) -> None:
        self._reader = reader
        self._root = os.fsencode(root)
        self._staging = os.fsencode(root.with_name(f".{root.name}.staging"))
        self._shown: dict[bytes, Entry] = {}
        self._catalogs: dict[bytes, str] = {}
        self.revision = 0

    def update(self) -> None:
        """Show the newest revision.

        Raises
        ------
        NativeError
            It cannot be read, or cannot be trusted.
        """
        head = self._reader.head()
        if head.manifest.revision > self.revision:
            self.show(self._reader.newest(head))
            self.revision = head.manifest.revision

    def show(self, revision: Revision) -> None:
        """Show a revision."""
        top = revision.stat(b"")
        assert top is not None
        os.makedirs(self._root, exist_ok=True)
        self._directory(revision, top, self._root)

    def _directory(self, revision: Revision, directory: Entry, target: bytes) -> None:
        """Bring a directory that is there up to date."""
        entries = {entry.name: entry for entry in revision.list(directory.path)}
        for name in set(os.listdir(target)) - entries.keys():
            _remove(os.path.join(target, name))
        groups: dict[int, bytes] = {}
        # Links come last, so that what they lead to is there.
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].is_symlink, item[0])):
            self._entry(revision, entry, os.path.join(target, name), groups)
        _apply_attributes(directory, target)

    def _entry(self, revision: Revision, entry: Entry, target: bytes, groups: dict[int, bytes]) -> None:
        if entry.is_directory:
            catalog = str(revision.catalog_of(entry.path).hash)
            nested = EntryFlag.NESTED_MOUNTPOINT in entry.flags
            if not (nested and self._catalogs.get(entry.path) == catalog and os.path.isdir(target)):
                self._subdirectory(revision, entry, target)
            if nested:
                self._catalogs[entry.path] = catalog
        elif self._shown.get(entry.path) != entry or not os.path.lexists(target):
            if os.path.isdir(target) and not os.path.islink(target):
                _remove(target)
            staged = self._stage()
            if entry.group in groups:
                os.link(groups[entry.group], staged, follow_symlinks=False)
            else:
                _make(revision, entry, staged)
            os.rename(staged, target)
        if entry.group:
            groups.setdefault(entry.group, target)
        self._shown[entry.path] = entry

    def _subdirectory(self, revision: Revision, entry: Entry, target: bytes) -> None:
        if os.path.isdir(target) and not os.path.islink(target):
            self._directory(revision, entry, target)
            return
        # A new one appears when it is whole, as a new catalog does.
        _remove(target)
        staged = self._stage()
        os.mkdir(staged)
        self._directory(revision, entry, staged)
        os.rename(staged, target)

    def _stage(self) -> bytes:
        os.makedirs(self._staging, exist_ok=True)
        number = len(os.listdir(self._staging))
        return os.path.join(self._staging, b"%d" % number)


def _remove(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _make(revision: Revision, entry: Entry, target: bytes) -> None:
    if entry.is_file:
        with open(target, "xb") as file:
            file.writelines(revision.content(entry))
    elif entry.is_symlink:
        os.symlink(expand(entry.target), target)
    else:
        os.mknod(target, entry.mode, entry.size if entry.is_device else 0)
    _apply_attributes(entry, target)


def _apply_attributes(entry: Entry, target: bytes) -> None:
    os.chown(target, *(_OVERFLOW_ID if id_ == _NO_ID else id_ for id_ in (entry.uid, entry.gid)), follow_symlinks=False)
    if not entry.is_symlink:
        os.chmod(target, stat.S_IMODE(entry.mode))
    for name in set(os.listxattr(target, follow_symlinks=False)) - set(map(os.fsdecode, entry.xattrs)):
        os.removexattr(target, name, follow_symlinks=False)
    for attribute, value in entry.xattrs.items():
        # Linux knows no attributes of users on anything but files and directories, whoever holds them.
        if entry.is_file or entry.is_directory or not attribute.startswith(b"user."):
            os.setxattr(target, attribute, value, follow_symlinks=False)
    nanoseconds = entry.mtime * 1_000_000_000 + entry.mtime_ns
    os.utime(target, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


@asynccontextmanager
async def follow(reader: RepositoryReader, root: Path) -> AsyncIterator[ClientView]:
    """Keep a directory up to date with a repository, for the time of the context.

    Parameters
    ----------
    reader
        Reads the repository, which must be there; the context closes it.
    root
        The directory.
    """
    view = ClientView(reader, root)
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(_POLL):
            view.update()

    with reader:
        await asyncio.to_thread(view.update)
        work = asyncio.create_task(asyncio.to_thread(keep))
        try:
            yield view
        finally:
            stop.set()
            await work
