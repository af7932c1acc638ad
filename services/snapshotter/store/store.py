"""The snapshots below one directory: records, directories, links.

On disk, below the directory::

    snapshots.sqlite    what is known of the snapshots
    l/<number>/         a snapshot's own files, in the kernel's overlay encoding; none of one that is a published layer
    l/_<number>         short link to a lower directory that is no snapshot's
    work/<number>/      overlay work directory of a snapshot that is not a view
    trash/              what has been removed, until Cleanup
    reserve             room for the next removal

All lower directories are in one with short names, to which containerd changes when it mounts many: one page of options
has to hold 499 of them. Those of snapshots are no links: BuildKit would find nothing in what it does not mount.

Directories are there before a record and go after it, so those without one are what a kill left. Directories are not
brought to the disk, which would take longer than all else: where power fails, a snapshot that has been made in the last
seconds may have lost its own, as it may have lost its files. It gets an empty one, and can be mounted and removed.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

import structlog

from services.node.layers import Layer, LayerId, LayerKind
from services.node.removal import delete_leftovers
from services.snapshotter.errors import DiskFullError
from services.snapshotter.store.model import Kind, Snapshot
from services.snapshotter.store.records import Records
from services.snapshotter.store.reserve import Reserve

__all__ = ["Attributes", "SnapshotStore"]

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

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


class SnapshotLayer(Layer):
    """A layer whose directory holds its own files and nothing else."""

    @property
    def diff(self) -> Path:
        """The layer's own files."""
        return self.directory


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
        self._lowers = root / "l"
        self._work = root / "work"
        self._trash = root / "trash"
        for directory in (root, self._lowers, self._work, self._trash):
            # Private: what is mounted is reached through the mount.
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._reserve = Reserve(root / "reserve")
        self._prefix = f"{self._lowers}/"
        self._linked: set[Path] = set()
        """Links that this process has seen to be there."""
        self.records = Records(root / "snapshots.sqlite")
        try:
            self._next = self.records.next_number()
            self._reserve.fill()
            self._finish_interrupted()
        except BaseException:
            self.records.close()
            raise

    def _finish_interrupted(self) -> None:
        snapshots = self.records.all()
        known = {snapshot.number for snapshot in snapshots}
        links = {f"_{_name(number)}": target for target, number in self.records.links().items()}
        for directory in (*self._lowers.iterdir(), *self._work.iterdir()):
            number = _number(directory.name)
            if number is not None and number not in known:
                self._discard(directory)
            elif directory.is_symlink() and str(directory.readlink()) != links.get(directory.name):
                # Its record was lost with the power, and its number is given to another one.
                directory.unlink()
        for snapshot in snapshots:
            if snapshot.remote is None and not self.diff(snapshot).exists():
                _log.warning("snapshot_has_lost_its_files", snapshot=snapshot.name, number=snapshot.number)
                self.diff(snapshot).mkdir()
            if snapshot.kind is Kind.ACTIVE:
                self.work(snapshot).mkdir(mode=0o700, exist_ok=True)

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
        below = self.records.parent_for(key, parent)
        try:
            self._make(number, kind, attributes or Attributes(0o755, 0, 0))
            return self.records.create(number, key, below, kind, labels)
        except BaseException:
            self._discard_both(number)
            raise

    def _make(self, number: int, kind: Kind, attributes: Attributes) -> None:
        diff = self._lowers / _name(number)
        diff.mkdir()
        os.chown(diff, attributes.owner, attributes.group)
        # After the owner, a change of which takes bits of the mode away.
        diff.chmod(attributes.mode)
        if kind is not Kind.VIEW:
            (self._work / _name(number)).mkdir(mode=0o700)

    def remove(self, key: str) -> Snapshot:
        """Forget a snapshot and move its directory aside.

        Raises
        ------
        NotFoundError, PreconditionError
            As of the records.
        """
        snapshot = self._with_room(lambda: self.records.remove(key))
        self._with_room(lambda: self._discard_both(snapshot.number))
        return snapshot

    def take_back(self, number: int) -> None:
        """Remove a snapshot that nobody has been told of, if it has been made."""
        snapshot = self.records.get(number)
        if snapshot is not None:
            self.remove(snapshot.name)

    def _with_room(self, change: Callable[[], _T]) -> _T:
        """Make a change that makes room, also on a full disk."""
        try:
            return change()
        except (DiskFullError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._reserve.release()
            return change()

    def _discard_both(self, number: int) -> None:
        for directory in (self._lowers, self._work):
            with contextlib.suppress(FileNotFoundError):
                self._discard(directory / _name(number))

    def _discard(self, directory: Path) -> None:
        # A rename and nothing else: on a full disk, no directory could be made for what is to make room there.
        directory.rename(self._trash / f"{directory.name}.{secrets.token_hex(8)}")

    def empty_trash(self) -> None:
        """Delete what has been moved aside, beside everything else; what cannot be deleted is logged, and stays."""
        delete_leftovers(list(self._trash.iterdir()))
        self._reserve.fill()

    def diff(self, snapshot: Snapshot) -> Path:
        """Return the directory of a snapshot's own files."""
        return self._lowers / _name(snapshot.number)

    def at(self, path: str) -> Snapshot | None:
        """Return the snapshot whose own files are in a directory; None if none's are."""
        place = Path(path)
        number = _number(place.name) if place.parent == self._lowers else None
        return None if number is None else self.records.get(number)

    def work(self, snapshot: Snapshot) -> Path:
        """Return a snapshot's overlay work directory."""
        return self._work / _name(snapshot.number)

    def layer(self, snapshot: Snapshot, kind: LayerKind = LayerKind.IMAGE) -> Layer:
        """Return a snapshot as the node core sees it."""
        parent = None if snapshot.parent_number is None else LayerId(str(snapshot.parent_number))
        return SnapshotLayer(LayerId(str(snapshot.number)), parent, kind, self.diff(snapshot))

    def lower(self, directory: Path) -> str:
        """Return the path of a directory for mount options."""
        if str(directory).startswith(self._prefix):
            return str(directory)
        place = self._lowers / f"_{_name(self.records.link(str(directory)))}"
        if place not in self._linked:
            with contextlib.suppress(FileExistsError):
                place.symlink_to(directory)
            self._linked.add(place)
        return str(place)

    def keep_links(self, needed: Callable[[str], bool]) -> None:
        """Remove the links to directories that are no snapshot's and not needed; none may be about to be mounted.

        Parameters
        ----------
        needed
            Told a directory, says whether it is.
        """
        for target, number in self.records.links().items():
            if not needed(target):
                place = self._lowers / f"_{_name(number)}"
                place.unlink(missing_ok=True)
                self._linked.discard(place)
                self.records.forget_link(number)


def _name(number: int) -> str:
    """Write a number with few characters."""
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def _number(name: str) -> int | None:
    """Read what `_name` writes; None if it is something else."""
    return int(name, len(_DIGITS)) if name and set(name) <= set(_DIGITS) else None
