"""What people must know of a flat image: where it is not what Apptainer itself would have unpacked, or not all there.

A flat image shows what an overlay of its layers shows, as Docker and podman do. Apptainer unpacks the layers one upon
the other, as umoci does, and comes to something else where a layer's archive has no entry for a directory that it has
something in: an overlay makes a directory of its own, while who unpacks uses what is there. The archives of Docker's
builders have all entries; those of bazel, ko and kaniko, and such as people make, have not.

Layers that are unpacked do not say any more which directories had no entry. These have the attributes that unpacking
gives them, so that a directory is named here if it *may* have been such a one.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog

from services.common.archive.notes import show
from services.common.digest import Digest

__all__ = [
    "Difference",
    "DifferenceReport",
    "DifferenceReports",
    "Differences",
    "DirectoryAttributes",
    "log_differences",
]

_log: Final = structlog.get_logger(__name__)

_SHOWN: Final = 20
"""How many of a kind are named; the rest is counted."""
_VARIABLE: Final = re.compile(rb"\$\([^)]*\)")
"""What CVMFS's client expands in the target of a link, by its own environment (variant symlinks)."""


class Difference(StrEnum):
    """Kinds of what is different."""

    HIDDEN_LINK = "hidden-link"
    """A directory of a layer hides a symbolic link of those below; who unpacks follows the link."""
    IMPLIED_DIRECTORY = "implied-directory"
    """A directory lost the permissions, owner or attributes that layers below gave it; who unpacks keeps them."""
    DROPPED_NAME = "dropped-name"
    """An entry was left out, since CVMFS's servers would act on its name."""
    VARIANT_LINK = "variant-link"
    """The client of CVMFS expands a variable in the target of a symbolic link, which cannot be told not to."""
    NOT_GENERATED = "not-generated"
    """A file of Apptainer's was not added, since what is above its place is no directory."""
    LEFT_OUT_VARIABLE = "left-out-variable"
    """A variable of the image's environment was left out, since no shell can set it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryAttributes:
    """What is compared of two directories."""

    permissions: int
    uid: int
    gid: int
    mtime: int
    """Of any unit, since the epoch."""
    has_xattrs: bool
    """Whether it has extended attributes, but for overlayfs's own."""

    @property
    def may_be_implied(self) -> bool:
        """Whether it looks as if its layer's archive had no entry for it."""
        return self == _IMPLIED


_IMPLIED: Final = DirectoryAttributes(permissions=0o755, uid=0, gid=0, mtime=0, has_xattrs=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceReport:
    """What was found of one kind."""

    count: int
    first: tuple[str, ...]
    """The first of them, printable and quoted, in the order in which they were found."""


DifferenceReports = Mapping[Difference, DifferenceReport]
"""What was found, by its kind; nothing of kinds that were not."""


def log_differences(config: Digest, reports: DifferenceReports) -> None:
    """Tell people of a flat image that has been made.

    Parameters
    ----------
    config
        SHA-256 of the image's configuration.
    reports
        What was found.
    """
    found = {str(kind): {"count": report.count, "first": list(report.first)} for kind, report in reports.items()}
    _log.info("a flat image has been made", config=config, differences=found)


class Differences:
    """Collects what is found while a flat image is made; however much that is, little of it is kept."""

    def __init__(self) -> None:
        self._counts: Counter[Difference] = Counter()
        self._first: dict[Difference, list[str]] = {}

    def add(self, kind: Difference, name: bytes) -> None:
        """Take note of the path, relative to the root, or of the name of something that is different."""
        self._counts[kind] += 1
        first = self._first.setdefault(kind, [])
        if len(first) < _SHOWN:
            first.append(show(name))

    def hides_link(self, path: bytes, directory: DirectoryAttributes) -> None:
        """Take note of a directory in the place of a link of the layers below, if umoci would have followed that."""
        if directory.may_be_implied:
            self.add(Difference.HIDDEN_LINK, path)

    def hides_directory(self, path: bytes, directory: DirectoryAttributes, below: DirectoryAttributes) -> None:
        """Take note of a directory that is merged with one below, if umoci would have kept the attributes of that."""
        # Times are not compared: every directory would be named that something is added to.
        if directory.may_be_implied and dataclasses.replace(below, mtime=0) != directory:
            self.add(Difference.IMPLIED_DIRECTORY, path)

    def link(self, path: bytes, target: bytes) -> None:
        """Take note of a symbolic link that is shown, if CVMFS's client changes its target."""
        if b"$(" in target and _VARIABLE.search(target):
            self.add(Difference.VARIANT_LINK, path)

    def variables(self, names: Iterable[str]) -> None:
        """Take note of variables that are left out."""
        for name in names:
            self.add(Difference.LEFT_OUT_VARIABLE, name.encode())

    def report(self) -> DifferenceReports:
        """Return what was found."""
        return {
            kind: DifferenceReport(count=self._counts[kind], first=tuple(self._first[kind]))
            for kind in Difference
            if self._counts[kind]
        }
