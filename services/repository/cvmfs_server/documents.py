"""Documents of images as files: read in the published tree, changed in the area of a transaction.

An image's directories are given their new files in place. They are not made anew, so that the transaction records
nothing but files that have changed and files that have gone, which is what every version of the program publishes well.
`.metadata` is a nested catalog, so that clients that run containers do not load it.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from services.common.durable import write_file
from services.common.image_name import METADATA_DIRECTORY, ImageName
from services.common.layout import CATALOG_MARKER
from services.repository.errors import ImageAdditionError, RepositoryError
from services.repository.images import MULTIARCH_DIRECTORY, ImageDocuments, image_of_directory, is_platform

__all__ = ["list_images", "put_image", "read_image", "remove_image"]

_NEW: Final = ".new-"
"""What the names of files begin with that are not in their places yet."""


def read_image(root: Path, name: ImageName) -> Mapping[str, bytes] | None:
    """Return the documents of an image by their paths below `.metadata`; None if there is no such image.

    Raises
    ------
    OSError
        The tree cannot be read.
    """
    metadata = root / METADATA_DIRECTORY
    files = {
        f"{directory}/{file}": (metadata / directory / file).read_bytes()
        for directory in _directories(root, name)
        for file in _files(metadata / directory)
    }
    return files or None


def list_images(root: Path) -> Sequence[ImageName]:
    """List the images of a tree in the order of their names.

    Raises
    ------
    OSError
        The tree cannot be read.
    """
    return sorted(_below(root / METADATA_DIRECTORY, ""))


def put_image(root: Path, documents: ImageDocuments) -> None:
    """Put the documents of an image in the place of those that are there.

    Raises
    ------
    ImageAdditionError
        Something else is in their place, or they cannot be written; nothing has been changed.
    RepositoryError
        Some of them have been changed and others cannot be: the transaction is not to be published.
    """
    before = _directories(root, documents.name)
    for directory in {*before, *documents.directories}:
        _check_place(root, directory)
    waiting: list[Path] = []
    made: list[Path] = []
    try:
        _mark(root / METADATA_DIRECTORY, made)
        for path, content in documents.files.items():
            place = root / METADATA_DIRECTORY / path
            _make(place.parent, made)
            new = place.with_name(f"{_NEW}{place.name}")
            waiting.append(new)
            write_file(new, content)
    except OSError as error:
        _give_up(waiting, made, error)
        raise ImageAdditionError(f"the documents of {documents.name} cannot be written: {error}") from error
    try:
        for new in waiting:
            os.rename(new, new.with_name(new.name.removeprefix(_NEW)))
        for directory in {*before, *documents.directories}:
            _remove(root, directory, kept=documents.files)
    except OSError as error:
        raise RepositoryError(f"the documents of {documents.name} are changed in part: {error}") from error


def remove_image(root: Path, name: ImageName) -> None:
    """Take an image out, if it is there.

    Raises
    ------
    ImageAdditionError
        Something that is none of its documents is in its directories; nothing has been changed.
    RepositoryError
        Some of it has been removed and the rest cannot be: the transaction is not to be published.
    """
    directories = _directories(root, name)
    for directory in directories:
        _check_place(root, directory)
    try:
        for directory in directories:
            _remove(root, directory, kept=())
    except OSError as error:
        raise RepositoryError(f"the documents of {name} are removed in part: {error}") from error


def _below(path: Path, directory: str) -> Iterator[ImageName]:
    for child in _children(path):
        if not _is_directory(path / child) or (not directory and child == MULTIARCH_DIRECTORY):
            continue
        inner = f"{directory}/{child}" if directory else child
        name = image_of_directory(inner)
        if name is None:
            yield from _below(path / child, inner)
        elif _files(path / child):
            yield name


def _directories(root: Path, name: ImageName) -> list[str]:
    """Return the directories that an image has, relative to `.metadata`; what is reached by a link is none."""
    platforms = filter(is_platform, _children(root / METADATA_DIRECTORY / MULTIARCH_DIRECTORY))
    places = [name.path, *(f"{MULTIARCH_DIRECTORY}/{platform}/{name.path}" for platform in platforms)]
    return [place for place in places if all(map(_is_directory, _ways(root, place)))]


def _ways(root: Path, directory: str) -> Sequence[Path]:
    """Return a directory of documents and those above it, from `.metadata` down."""
    path = Path(METADATA_DIRECTORY, directory)
    return [root / way for way in (*reversed(path.parents[:-1]), path)]


def _check_place(root: Path, directory: str) -> None:
    """Make sure that a directory is there, with nothing in it but files, or can be made."""
    for path in _ways(root, directory):
        if os.path.lexists(path) and not _is_directory(path):
            raise ImageAdditionError(f"{path} is no directory, and not this suite's: remove it")
    place = root / METADATA_DIRECTORY / directory
    for child in _children(place):
        if not stat.S_ISREG((place / child).lstat().st_mode):
            raise ImageAdditionError(f"{place / child} is no document of an image, and not this suite's: remove it")


def _mark(metadata: Path, made: list[Path]) -> None:
    _make(metadata, made)
    with contextlib.suppress(FileExistsError):
        write_file(metadata / CATALOG_MARKER, b"")


def _make(directory: Path, made: list[Path]) -> None:
    """Make a directory and those above it, and note which."""
    if not directory.exists():
        _make(directory.parent, made)
        directory.mkdir(0o755)
        made.append(directory)


def _give_up(waiting: Sequence[Path], made: Sequence[Path], cause: OSError) -> None:
    try:
        for file in waiting:
            file.unlink(missing_ok=True)
        for directory in reversed(made):
            if directory.name != METADATA_DIRECTORY:
                directory.rmdir()
    except OSError as error:
        raise RepositoryError(f"{cause}; and what has been written cannot be removed: {error}") from cause


def _remove(root: Path, directory: str, *, kept: Mapping[str, bytes] | tuple[()]) -> None:
    """Remove the files in a directory that are not to stay, and the directories that have nothing in them then."""
    metadata = root / METADATA_DIRECTORY
    for file in _files(metadata / directory):
        if f"{directory}/{file}" not in kept:
            (metadata / directory / file).unlink()
    for path in (metadata / directory, *Path(metadata, directory).parents):
        if path == metadata or _children(path):
            return
        path.rmdir()


def _files(directory: Path) -> list[str]:
    return [
        name
        for name in _children(directory)
        if name != CATALOG_MARKER and stat.S_ISREG((directory / name).lstat().st_mode)
    ]


def _children(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False
