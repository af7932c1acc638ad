"""Checks what catalogs say of one another: sizes, counters, and the two rows of every directory between them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from services.repository.native.check.catalogs import CatalogFacts
from services.repository.native.check.problem import PUBLISH_AGAIN, Problem
from services.repository.native.reader.catalog import CatalogReference
from services.repository.native.reader.entries import Row, show_path
from services.repository.native.records import COUNTER_NAMES, EntryFlag

__all__ = ["CatalogKey", "check_nesting", "key_of"]

Counters = Mapping[str, int]
"""By their names without a prefix."""

CatalogKey = tuple[str, bytes]
"""Hash and path of a catalog, which is what makes it the same one in two revisions."""

_EQUAL: Final = ("mode", "uid", "gid", "size", "mtime", "mtimens", "hardlinks", "xattr")
_OWN_FLAGS: Final = int(EntryFlag.NESTED_MOUNTPOINT | EntryFlag.NESTED_ROOT)


def key_of(reference: CatalogReference) -> CatalogKey:
    """Return what makes a catalog the same one."""
    return str(reference.hash), reference.path


def check_nesting(catalogs: Mapping[CatalogKey, CatalogFacts]) -> Iterator[Problem]:
    """Iterate over what is wrong between catalogs and those directly below them.

    Parameters
    ----------
    catalogs
        All that have been checked.
    """
    totals: dict[CatalogKey, Counters | None] = {}
    # Those deepest in the tree come first, so that what is below a catalog has been counted when its turn comes.
    for key, facts in sorted(catalogs.items(), key=lambda item: -item[1].reference.path.count(b"/")):
        totals[key] = None
        if not facts.readable:
            continue
        for reference, mountpoint in facts.nested:
            child = catalogs[key_of(reference)]
            if child.readable:
                yield from _compare(reference, mountpoint, child)
        below = _sum(totals[key_of(reference)] for reference, _ in facts.nested)
        if below is not None:  # otherwise something below cannot be read, which is told
            yield from _check_subtree(facts, below)
            totals[key] = _sum((below, facts.counted))


def _sum(parts: Iterable[Counters | None]) -> Counters | None:
    total = dict.fromkeys(COUNTER_NAMES, 0)
    for part in parts:
        if part is None:
            return None
        for name in COUNTER_NAMES:
            total[name] += part[name]
    return total


def _check_subtree(facts: CatalogFacts, below: Counters) -> Iterator[Problem]:
    for name, value in below.items():
        found = facts.stated.get(f"subtree_{name}", value)
        if found != value:
            yield Problem(
                show_path(facts.reference.path),
                f"the counter subtree_{name} of its catalog is {found} instead of {value}",
                PUBLISH_AGAIN,
            )


def _compare(reference: CatalogReference, mountpoint: Row, child: CatalogFacts) -> Iterator[Problem]:
    place = show_path(reference.path)
    if reference.size and reference.size != child.size:
        yield Problem(
            place, f"its catalog has {child.size} bytes, and its parent catalog says {reference.size}", PUBLISH_AGAIN
        )
    if child.root is None:
        return
    for column in _EQUAL:
        above, below = getattr(mountpoint, column), getattr(child.root, column)
        if above != below:
            yield Problem(
                place, f"its {column} is {above!r} in its parent catalog and {below!r} in its own", PUBLISH_AGAIN
            )
    if (mountpoint.flags | _OWN_FLAGS) != (child.root.flags | _OWN_FLAGS):
        yield Problem(
            place,
            f"its flags are {mountpoint.flags} in its parent catalog and {child.root.flags} in its own",
            PUBLISH_AGAIN,
        )
