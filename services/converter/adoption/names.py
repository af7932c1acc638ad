"""Where the names of images are in the tree of a repository, and which flat images they lead to."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import METADATA_DIRECTORY, ImageName
from services.converter.adoption.files import names_in
from services.converter.errors import AdoptionError
from services.repository.images import MULTIARCH_DIRECTORY, image_of_directory, is_platform
from services.repository.public_names import flat_home

__all__ = ["Documents", "documents_in", "flat_of_link", "machines_of", "public_links", "reached"]

_LONGEST: Final = 700
"""Longest path that is looked below, in characters; names of images are shorter."""
_DIGITS: Final = 64
"""Characters of a digest."""
_MOST: Final = 200_000
"""Most directories of documents, or links, that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """The directories that have documents of images."""

    places: Mapping[ImageName, tuple[str, ...]]
    """Relative to that of all documents; that which has the image's own name first, where there is one."""
    nameless: tuple[str, ...]
    """Those that have documents and no name which this suite takes."""


def documents_in(root: Path) -> Documents:
    """List all directories that have documents of images; blocking.

    Raises
    ------
    AdoptionError
        They cannot be read, or are too many.
    """
    top = root / METADATA_DIRECTORY
    places: dict[ImageName, list[str]] = {}
    nameless: list[str] = []
    waiting = [""]
    while waiting:
        above = waiting.pop()
        for entry in names_in(top / above):
            relative = f"{above}/{entry}".lstrip("/")
            path = top / relative
            name = image_of_directory(relative) if path.is_dir() else None
            if name is not None:
                places.setdefault(name, []).append(relative)
            elif entry == "manifest.json":
                nameless.append(above)
            elif path.is_dir() and not path.is_symlink():
                _look_below(relative, waiting)
        if len(places) + len(nameless) > _MOST:
            raise AdoptionError(f"{top} has more than {_MOST} images")
    ordered = {name: _own_first(name, found) for name, found in places.items()}
    return Documents(places=ordered, nameless=tuple(sorted(nameless)))


def _own_first(name: ImageName, found: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(found, key=lambda directory: (directory != name.path, directory)))


def _look_below(relative: str, waiting: list[str]) -> None:
    if len(relative) > _LONGEST:
        raise AdoptionError(f"directories are too deep at {relative[:80]}...: this is no tree of images")
    waiting.append(relative)


def machines_of(root: Path, name: ImageName) -> tuple[str, ...]:
    """Return the processors for which an image has links below `.multiarch`, but for other names of the same ones."""
    top = root / MULTIARCH_DIRECTORY
    found = [each for each in names_in(top) if is_platform(each) and not (top / each).is_symlink()]
    return tuple(each for each in found if (top / each / name.path).is_symlink())


def public_links(root: Path) -> Iterator[str]:
    """Give the places of all links in the directories of registries, relative to the root; blocking.

    Raises
    ------
    AdoptionError
        They cannot be read, or are too many.
    """
    waiting = [each for each in names_in(root) if _is_registry(each) and (root / each).is_dir()]
    count = 0
    while waiting:
        above = waiting.pop()
        for entry in names_in(root / above):
            relative = f"{above}/{entry}"
            if (root / relative).is_symlink():
                count += 1
                yield relative
            elif (root / relative).is_dir():
                _look_below(relative, waiting)
            if count + len(waiting) > _MOST:
                raise AdoptionError(f"{root} has more than {_MOST} names of images")


def _is_registry(name: str) -> bool:
    return not name.startswith(".") and (name == "localhost" or "." in name or ":" in name)


def reached(root: Path, place: str) -> bool:
    """Tell whether the link at a place leads to something that is there."""
    try:
        return (root / place).exists()
    except OSError:  # a circle of links
        return False


def flat_of_link(root: Path, place: str) -> Digest | None:
    """Return the configuration of the flat image that a link leads to; None where it leads anywhere else.

    Parameters
    ----------
    place
        Of the link, relative to the root.
    """
    real = Path(os.path.realpath(root / place))
    try:
        # In a directory of this suite's, more may follow the digest.
        config = Digest(real.name[:_DIGITS])
    except InvalidValueError:
        return None
    is_there = real.is_dir() and real == Path(os.path.realpath(root / flat_home(config)))
    return config if is_there else None
