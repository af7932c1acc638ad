"""The snapshots below one directory: records, directories, links.

On disk, below the directory::

    snapshots.sqlite        what is known of the snapshots
    snapshots/<number>/diff/   a snapshot's own files, in the kernel's overlay encoding
    snapshots/<number>/work/   overlay work directory of one that is not a view
    l/<number>              short link to a snapshot's files
    l/_<number>             short link to another lower directory
    trash/                  directories of removed snapshots, until Cleanup

A directory is there before its record and goes after it, so one without a record is what a kill left.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from services.common.durable import sync_directory
from services.node.layers import Layer, LayerId, LayerKind
from services.snapshotter.store.model import Kind, Snapshot
from services.snapshotter.store.records import Records

__all__ = ["Attributes", "SnapshotStore"]

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes of a root directory, which a container sees as those of `/`."""

    mode: int
    owner: int
    group: int

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Read them."""
        status = os.stat(directory)
        return cls(status.st_mode & 0o7777, status.st_uid, status.st_gid)


class SnapshotStore:
    """All methods block, and are called by one thread at a time.

    Parameters
    ----------
    root
        The directory; made where it is missing.

    Raises
    ------
    StateError
        What is there cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._snapshots = root / "snapshots"
        self._links = root / "l"
        self._trash = root / "trash"
        for directory in (root, self._snapshots, self._links, self._trash):
            # Private: what is mounted is reached through the mount.
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.records = Records(root / "snapshots.sqlite")
        self._next = self.records.next_number()
        self._linked: set[str] = set()
        """Links that this process has seen to be there."""
        self._finish_interrupted()

    def _finish_interrupted(self) -> None:
        known = {str(snapshot.number) for snapshot in self.records.all()}
        for directory in self._snapshots.iterdir():
            if directory.name not in known:
                self._discard(directory)

    def close(self) -> None:
        """Close the database."""
        self.records.close()

    def reserve(self) -> int:
        """Return a number for a snapshot that is about to be created."""
        number, self._next = self._next, self._next + 1
        return number

    def create(
        self,
        number: int,
        key: str,
        parent: str,
        kind: Kind,
        labels: Mapping[str, str],
        attributes: Attributes | None,
    ) -> Snapshot:
        """Make a snapshot that is not committed.

        Parameters
        ----------
        number
            What `reserve` returned.
        attributes
            Of the root directory; those of an empty file system by default.

        Raises
        ------
        ExistsError, NotFoundError, BadRequestError
            As of the records.
        """
        self.records.parent_for(key, parent)
        directory = self._snapshots / str(number)
        directory.mkdir(mode=0o700)
        try:
            _fill(directory, kind, attributes or Attributes(0o755, 0, 0))
            sync_directory(directory)
            sync_directory(self._snapshots)
            return self.records.create(number, key, parent, kind, labels)
        except BaseException:
            self._discard(directory)
            raise

    def remove(self, key: str) -> Snapshot:
        """Forget a snapshot and move its directory aside.

        Raises
        ------
        NotFoundError, PreconditionError
            As of the records.
        """
        snapshot = self.records.remove(key)
        (self._links / _base36(snapshot.number)).unlink(missing_ok=True)
        self._linked.discard(_base36(snapshot.number))
        self._discard(self._snapshots / str(snapshot.number))
        return snapshot

    def _discard(self, directory: Path) -> None:
        # A rename and nothing else: on a full disk, no directory could be made for what is to make room there.
        directory.rename(self._trash / f"{directory.name}.{secrets.token_hex(8)}")

    def empty_trash(self) -> None:
        """Delete what has been moved aside; may run beside everything else."""
        for grave in self._trash.iterdir():
            shutil.rmtree(grave)

    def diff(self, snapshot: Snapshot) -> Path:
        """Return the directory of a snapshot's own files."""
        return self._snapshots / str(snapshot.number) / "diff"

    def work(self, snapshot: Snapshot) -> Path:
        """Return a snapshot's overlay work directory."""
        return self._snapshots / str(snapshot.number) / "work"

    def layer(self, snapshot: Snapshot, kind: LayerKind = LayerKind.IMAGE) -> Layer:
        """Return a snapshot as the node core sees it."""
        parent = None if snapshot.parent_number is None else LayerId(str(snapshot.parent_number))
        return Layer(LayerId(str(snapshot.number)), parent, kind, self._snapshots / str(snapshot.number))

    def number_of(self, diff: Path) -> int | None:
        """Return the number of the snapshot that a directory of own files belongs to; None if it is no such one."""
        place = diff.parent
        is_own = diff.name == "diff" and place.parent == self._snapshots and place.name.isdecimal()
        return int(place.name) if is_own else None

    def lower(self, directory: Path) -> str:
        """Return the path of a directory for mount options: one page has to hold 499 of them."""
        number = self.number_of(directory)
        if number is not None:
            return self._link(_base36(number), f"../snapshots/{number}/diff")
        return self._link("_" + _base36(self.records.link(str(directory))), str(directory))

    def keep_links(self, needed: Callable[[str], bool]) -> None:
        """Remove the links to directories that are no snapshot's and not needed; none may be about to be mounted.

        Parameters
        ----------
        needed
            Told a directory, says whether it is.
        """
        for target, number in self.records.links().items():
            if not needed(target):
                name = "_" + _base36(number)
                (self._links / name).unlink(missing_ok=True)
                self._linked.discard(name)
                self.records.forget_link(number)

    def _link(self, name: str, target: str) -> str:
        place = self._links / name
        if name not in self._linked:
            if not place.is_symlink():
                place.symlink_to(target)
            self._linked.add(name)
        return str(place)


def _fill(directory: Path, kind: Kind, attributes: Attributes) -> None:
    diff = directory / "diff"
    diff.mkdir()
    os.chown(diff, attributes.owner, attributes.group)
    # After the owner, a change of which takes bits of the mode away.
    diff.chmod(attributes.mode)
    if kind is not Kind.VIEW:
        (directory / "work").mkdir(mode=0o700)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
