"""Defects, as they are told to whoever runs a repository."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from services.common.layout import LAYERS_DIRECTORY

__all__ = ["PUBLISH_AGAIN", "RESTORE", "Problem", "at_most_few", "mending"]

RESTORE: Final = "restore it from a replica or a backup"
"""What helps against the loss of what was right once."""

PUBLISH_AGAIN: Final = "the program that published it is at fault: publish this directory again with another"
"""What helps against what was written wrongly."""

_LAYER: Final = re.compile(rf"/{re.escape(LAYERS_DIRECTORY)}/[0-9a-f]{{2}}/([0-9a-f]{{64}})(?:/|$)")

_FEW: Final = 20
"""Defects of one kind in one catalog that are told one by one."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One defect."""

    place: str
    """The path in the repository, or the file of the storage, that has it."""
    what: str
    """What is wrong."""
    remedy: str
    """What to do."""

    def __str__(self) -> str:
        return f"{self.place}: {self.what}: {self.remedy}"


def mending(place: str) -> str:
    """Return what helps against the loss of an object of a path, printable: a layer can be published anew."""
    layer = _LAYER.match(place)
    if layer is None:
        return RESTORE
    return (
        f"thin-repository republish NAME {layer[1]}, then thinctl retry {layer[1]}, or thinctl images retry IMAGE if "
        f"it came with an image from a registry; if its archive is gone, {RESTORE}"
    )


def at_most_few(problems: Iterable[Problem], *, place: str) -> list[Problem]:
    """Keep a number of defects of one kind that people can read, and count the others.

    Parameters
    ----------
    problems
        Defects of one kind.
    place
        Where they all are, for the count.
    """
    iterator = iter(problems)
    kept = list(islice(iterator, _FEW))
    if more := sum(1 for _ in iterator):
        kept.append(Problem(place, f"{more} more entries have the same defect as {kept[-1].place}", kept[-1].remedy))
    return kept
