"""What a batch leaves to be done when it is visible, written before that, so that a kill in between loses nothing."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from services.common.deletion import delete_tree
from services.common.durable import write_file
from services.common.replacement import exchange
from services.repository.errors import RepositoryError

__all__ = ["Leftovers", "remove_dangling"]

_FILE: Final = "leftovers.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """Links and directories that a batch has no use for; paths are relative to the repository's root."""

    links: Sequence[str] = ()
    """Links that lead nowhere when the batch is visible, and are removed then."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """The homes of layers and flat images that it removes: where the links lead, by their paths."""
    moved: Mapping[str, str] = field(default_factory=dict)
    """Links that lead elsewhere when the batch is visible: where, by their paths."""
    overtaken: Mapping[str, str] = field(default_factory=dict)
    """Links that come into the place of what DUCC has left there, or lead to such: where they lead, by their paths."""
    superseded: Sequence[str] = ()
    """Directories that nobody reaches any more; they are deleted with the next batch, when nobody reads them."""
    before: Sequence[str] = ()
    """What the batch before has superseded."""
    overtaken_in: str = ""
    """Directory that gets what has been overtaken; it is superseded."""

    @classmethod
    def read(cls, batch: Path) -> Self:
        """Read what a batch has left; nothing where it says nothing.

        Raises
        ------
        RepositoryError
            The record is damaged.
        """
        file = batch / _FILE
        try:
            return cls(**json.loads(file.read_bytes()))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError) as error:
            raise RepositoryError(f"{file} is damaged: {error}") from error

    def write(self, batch: Path) -> None:
        """Write it into a batch that is not visible yet."""
        record = {
            "links": list(self.links),
            "layers": dict(self.layers),
            "moved": dict(self.moved),
            "overtaken": dict(self.overtaken),
            "superseded": list(self.superseded),
            "before": list(self.before),
            "overtaken_in": self.overtaken_in,
        }
        write_file(batch / _FILE, json.dumps(record).encode())

    def clear(self, root: Path) -> None:
        """Remove what is to go; may be repeated."""
        for number, (place, target) in enumerate(self.overtaken.items()):
            _overtake(root / place, target, root / self.overtaken_in / str(number))
        for home, target in self.layers.items():
            link = root / home
            if link.is_symlink() and os.readlink(link) == target:
                link.unlink()
        for place, target in self.moved.items():
            _replace_link(root / place, target)
        remove_dangling(root, self.links)
        for directory in self.before:
            delete_tree(root / directory)


def _overtake(link: Path, target: str, left: Path) -> None:
    """Put a link in the place of something else by one step, and what was there where nobody finds it any more."""
    new = link.with_name(f".{link.name}.new")
    if not (link.is_symlink() and os.readlink(link) == target):
        if new.is_symlink():
            new.unlink()
        new.symlink_to(target)
        if not os.path.lexists(link):
            os.rename(new, link)
            return
        exchange(link, new)
    if os.path.lexists(new):
        left.parent.mkdir(exist_ok=True)
        os.rename(new, left)


def _replace_link(link: Path, target: str) -> None:
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.rename(new, link)


def remove_dangling(root: Path, links: Iterable[str]) -> None:
    """Remove links that lead nowhere, and the directories that have nothing else in them."""
    for link in links:
        path = root / link
        if path.is_symlink() and not path.exists():
            path.unlink()
            _prune(root, path)


def _prune(root: Path, path: Path) -> None:
    for directory in path.parents:
        if directory == root:
            return
        try:
            directory.rmdir()
        except OSError:  # something else is in it
            return
