"""The batches of a tree, and the one link that says which is the last that is published; blocking."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from services.common.deletion import delete_tree
from services.common.durable import sync_directory
from services.repository.directory.record import Leftovers

__all__ = ["BATCHES", "HEAD", "OVERTAKEN", "PREPARED", "Batches"]

BATCHES: Final = ".batches"
"""Directory of all batches, relative to the root."""
PREPARED: Final = ".prepared-"
"""What the names of layers begin with that no transaction has yet."""
OVERTAKEN: Final = ".overtaken-"
"""What the name of a directory begins with that has what a batch has come into the place of, until the next one."""
HEAD: Final = ".head"
"""Name of the link to the batch that is published last."""
_BATCH: Final = ".batch-"


class Batches:
    """The batches of one repository.

    Parameters
    ----------
    root
        Root of the repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / BATCHES
        self.head = self.path / HEAD
        self._finished = False

    @property
    def revision(self) -> int:
        """The last revision that is published; 0 if there is none."""
        if self.head.is_symlink():
            return int(os.readlink(self.head).removeprefix(_BATCH))
        # As far as versions of this suite came that published no images: there a batch was its revision's directory.
        return max((int(name) for name in os.listdir(self.path) if name.isdecimal() and self._is_old(name)), default=0)

    def _is_old(self, name: str) -> bool:
        return not (self.path / name).is_symlink()

    @property
    def next(self) -> Path:
        """The directory of the batch that is published next."""
        return self.path / f"{_BATCH}{self.revision + 1}"

    def is_unpublished(self, name: str) -> bool:
        """Tell whether something in the directory of batches is one that a kill has kept from being published."""
        return name.startswith(_BATCH) and int(name.removeprefix(_BATCH)) > self.revision

    def superseded(self) -> Sequence[str]:
        """Return the directories, relative to the root, that are no longer published and may still be read."""
        return Leftovers.read(self.head).superseded

    def publish(self, staging: Path, changed: Iterable[Path]) -> int:
        """Make a batch visible; return its revision.

        Parameters
        ----------
        staging
            Its directory.
        changed
            All directories but that one in which entries have been made for it.

        Raises
        ------
        OSError
            It is not visible, or was not brought to the disk.
        """
        revision = self.revision + 1
        batch = self.next
        (staging / f".is-{revision}").symlink_to(".")
        staging.chmod(0o755)
        os.rename(staging, batch)
        self._link(str(revision), f"{HEAD}/.is-{revision}")
        for directory in (batch, self.path, *changed):
            sync_directory(directory)
        self._link(HEAD, batch.name)
        self._finished = False
        sync_directory(self.path)
        return revision

    def finish(self) -> None:
        """Do what the last batch has left to be done.

        Raises
        ------
        OSError
            Some of it cannot be done now.
        RepositoryError
            The record of it is damaged.
        """
        if self._finished:
            return
        if self.head.is_symlink():
            self._link(str(self.revision), os.readlink(self.head))
            Leftovers.read(self.head).clear(self.root)
        self._finished = True

    def forget(self, batch: Path) -> None:
        """Delete a batch that is not published, with what leads to it."""
        if batch.name.startswith(_BATCH):
            (self.path / batch.name.removeprefix(_BATCH)).unlink(missing_ok=True)
        delete_tree(batch)

    def _link(self, name: str, target: str) -> None:
        new = self.path / f"{HEAD}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        os.rename(new, self.path / name)
