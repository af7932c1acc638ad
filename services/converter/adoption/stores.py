"""Stores of podman's in the repository of another tool."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.common.digest import Digest
from services.converter.adoption.documents import stored_rows
from services.converter.adoption.files import names_in
from services.converter.adoption.model import FoundStore
from services.converter.errors import AdoptionError
from services.repository.podman.store import IMAGES, LAYERS, LISTS
from services.repository.podman.stores import store_paths

__all__ = ["find_stores", "store_name"]

_RELATIVE: Final = "links to layers are relative: commit, save, and pulling an image that shares one fail"
_BROKEN: Final = "links to layers lead nowhere"
_SHORT: Final = "layers have no short name: podman does not find them below others"
_MOUNTS: Final = Path("/cvmfs")


def find_stores(root: Path) -> list[FoundStore]:
    """Find all stores of a repository, and what is wrong with them; blocking.

    Raises
    ------
    AdoptionError
        The repository cannot be read.
    """
    return [_find(root, path) for path in store_paths(lambda directory: names_in(root / directory))]


def store_name(path: str) -> str | None:
    """Return the name of the store at a path; None for that which has none."""
    return path.partition("/")[2] or None


def _find(root: Path, path: str) -> FoundStore:
    faults: list[str] = []
    images, layers = (_rows(root, path, file, faults) for file in (IMAGES, LAYERS))
    faults += [f"there is no {lock}" for lock in LISTS.values() if not (root / path / lock).exists()]
    counts: Counter[str] = Counter()
    for layer in layers:
        counts.update(_faults_of_layer(root, root / path / "overlay" / layer))
    faults += [f"{what} ({count})" for what, count in sorted(counts.items())]
    return FoundStore(path=path, images=frozenset(images), faults=tuple(faults))


def _rows(root: Path, path: str, file: str, faults: list[str]) -> Sequence[Digest]:
    try:
        return stored_rows(root / path / file)
    except AdoptionError as error:
        faults.append(f"{file}: {error}")
        return ()


def _faults_of_layer(root: Path, place: Path) -> list[str]:
    faults = []
    diff = place / "diff"
    if diff.is_symlink():
        target = Path(os.readlink(diff))
        if not target.is_absolute():
            faults.append(_RELATIVE)
        elif target.is_relative_to(_MOUNTS / root.name):  # as clients see it, wherever it is looked at here
            diff = root / target.relative_to(_MOUNTS / root.name)
    if not diff.is_dir():
        faults.append(_BROKEN)
    try:
        short = (place / "link").read_text(encoding="ascii")[:64]
    except (OSError, ValueError):
        short = ""
    if not short.isalnum() or not (place.parent / "l" / short).is_symlink():
        faults.append(_SHORT)
    return faults
