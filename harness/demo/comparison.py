"""Which file systems of the demonstration must be equal."""

import dataclasses
from collections.abc import Mapping
from typing import Final

from harness.demo.narrator import Narrator
from harness.trees import Tree, differences

__all__ = [
    "COMMITTED",
    "CONTAINER",
    "ELSEWHERE",
    "PLAIN_COMMITTED",
    "PLAIN_CONTAINER",
    "DifferenceError",
    "compare",
]

CONTAINER: Final = "the changed container"
"""The thin container that was changed."""

COMMITTED: Final = "the committed image"
"""The image made of it, on the node that made it."""

ELSEWHERE: Final = "the other node's container"
"""The same image on the other node."""

PLAIN_CONTAINER: Final = "overlay2's container"
"""An ordinary container with the same changes."""

PLAIN_COMMITTED: Final = "overlay2's committed image"
"""The image made of that one by Docker itself."""

_SHOWN: Final = 40
"""Differences that are printed of one comparison."""


class DifferenceError(Exception):
    """File systems that must be equal are not; the differences have been printed."""


def compare(trees: Mapping[str, Tree], narrator: Narrator, *, links_told: str | None = None) -> None:
    """Compare the five file systems.

    Parameters
    ----------
    links_told
        Why a thin container may show two names of one file as two files, in the driver's words; None where it may not.
        What it does not show is then not compared with it, and the comparison of the committed images shows that it is
        there.

    Raises
    ------
    DifferenceError
        They are not all equal.
    """
    kept = f"{COMMITTED}, as Docker keeps it"
    all_trees = {**trees, kept: _as_docker_keeps(trees[COMMITTED])}
    different = []
    for left, right in (
        (CONTAINER, PLAIN_CONTAINER),
        (CONTAINER, COMMITTED),
        (COMMITTED, ELSEWHERE),
        (kept, PLAIN_COMMITTED),
    ):
        other = all_trees[right]
        if links_told is not None and left == CONTAINER:
            other = _with_links_as_in(all_trees[left], other)
        lines = differences(all_trees[left], other, names=(left, right))
        verdict = f"{len(lines)} DIFFERENCES" if lines else f"equal ({len(all_trees[left]):,} files)"
        narrator.say(f"{left} and {right}: {verdict}")
        for line in lines[:_SHOWN]:
            narrator.say(f"  {line}")
        if lines:
            different.append(f"{left} and {right}")
    if different:
        raise DifferenceError(f"not equal: {'; '.join(different)}")
    if links_told is not None:
        narrator.say(f"(hard links that {CONTAINER} does not show were left out with it: they are {links_told})")
    lost = len(differences(trees[PLAIN_CONTAINER], trees[PLAIN_COMMITTED]))
    narrator.say(
        f"(overlay2's own commit lost {lost} attributes: parts of seconds, times before 1970, user.* attributes)"
    )


def _with_links_as_in(container: Tree, other: Tree) -> Tree:
    """Leave out the link groups of files that a container shows as files of one name."""
    return {
        path: entry if path not in container or container[path].links else dataclasses.replace(entry, links=())
        for path, entry in other.items()
    }


def _as_docker_keeps(tree: Tree) -> Tree:
    """Leave out what Docker's own archives do not hold: parts of seconds, times before 1970, most attributes."""
    return {
        path: dataclasses.replace(
            entry,
            mtime=None if entry.mtime is None else max(0, entry.mtime // 10**9 * 10**9),
            xattrs={key: value for key, value in entry.xattrs.items() if key == "security.capability"},
        )
        for path, entry in tree.items()
    }
