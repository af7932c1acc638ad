"""Where the catalog of a layer is split, so that a container's start transfers little of it.

A client fetches a catalog whole at the first look-up in it, and overlayfs looks up each name in every layer that has
its directory. So what counts is what shares a catalog with the few directories that every start looks into. They stay
in the catalog of the layer's home, all in one; the heaviest subtrees beside them become catalogs of their own until
what is left of the others is small. Whatever is large in these is split again, from the leaves up.

Each catalog costs a request when it is entered, so none is made for a few entries. The same tree is always cut alike.
"""

import re
from typing import Final, NamedTuple

from services.common.archive.nametree import Directory

__all__ = ["choose_cuts"]

_SYSTEM: Final = frozenset(
    (
        *(b"", b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32", b"etc"),
        *(b"usr", b"usr/bin", b"usr/sbin", b"usr/lib", b"usr/lib32", b"usr/lib64", b"usr/libx32"),
        *(b"usr/local", b"usr/local/bin", b"usr/local/sbin", b"usr/local/lib", b"usr/local/lib64"),
    )
)
"""Where programs, what they are linked to, and its configuration are looked for, whatever is started."""

_MULTIARCH: Final = re.compile(rb"(usr/|usr/local/)?lib/[a-z0-9_]+-linux-[a-z0-9_]+")
"""The same, of one architecture: `usr/lib/x86_64-linux-gnu`."""

_BESIDE: Final = 500
"""Entries below other directories that the catalog of the home should hold at most."""
_LARGEST: Final = 4000
"""Entries that any other catalog should hold at most: some 350 KB as they are transferred."""
_WORTH: Final = 250
"""Fewest entries that are cut away from a catalog that is hardly too large; the larger it is, the fewer will do."""
_SMALLEST: Final = 64
"""Fewest entries that are ever cut away: of fewer, the request costs more than their transfer."""
_MOUNTPOINT: Final = 2
"""What a catalog leaves in the one above it: a directory's row, and a reference."""


class _Subtree(NamedTuple):
    """A directory, and how many entries of it and below it are in no catalog of their own."""

    weight: int
    path: bytes


def choose_cuts(root: Directory) -> dict[bytes, int]:
    """Choose the directories of a layer that become the roots of catalogs.

    Parameters
    ----------
    root
        The layer's tree.

    Returns
    -------
    dict
        How many entries each catalog has, by its path in the layer. The layer's root is one of them: what is nowhere
        else is in the catalog of its home.
    """
    cuts: dict[bytes, int] = {}
    beside: list[_Subtree] = []
    system = _system(root, b"", beside, cuts)
    cuts[b""] = system + _cut(beside, cuts, most=_BESIDE, worth=_SMALLEST)
    return cuts


def _system(directory: Directory, path: bytes, beside: list[_Subtree], cuts: dict[bytes, int]) -> int:
    """Weigh the directories that every start looks into, and find what hangs below them and is none of them."""
    names = 1
    for name, node in directory.items():
        if not isinstance(node, Directory):
            names += 1
            continue
        inner = path + b"/" + name if path else name
        if inner in _SYSTEM or _MULTIARCH.fullmatch(inner):
            names += _system(node, inner, beside, cuts)
        else:
            beside.append(_subtree(node, inner, cuts))
    return names


def _subtree(directory: Directory, path: bytes, cuts: dict[bytes, int]) -> _Subtree:
    """Weigh a directory, after what is too large below it has been cut."""
    inner = [
        _subtree(node, path + b"/" + name, cuts) for name, node in directory.items() if isinstance(node, Directory)
    ]
    names = 1 + len(directory) - len(inner)
    return _Subtree(names + _cut(inner, cuts, most=_LARGEST - names, worth=_WORTH), path)


def _cut(subtrees: list[_Subtree], cuts: dict[bytes, int], *, most: int, worth: int) -> int:
    """Cut the heaviest subtrees away until the others fit, or none is worth it; return what all of them leave."""
    left = sum(subtree.weight for subtree in subtrees)
    for weight, path in sorted(subtrees, key=lambda subtree: (-subtree.weight, subtree.path)):
        if left <= most or weight < max(_SMALLEST, worth * most // left):
            break
        if _is_text(path):
            cuts[path] = weight
            left += _MOUNTPOINT - weight
    return left


def _is_text(path: bytes) -> bool:
    """Whether a catalog may say by its property `root_prefix`, a text, that it begins there."""
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True
