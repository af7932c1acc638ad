"""The names of flat images in a tree: links that lead through the index of images, so that all change at once.

::

    quay.io/ns/tool:v1                    -> .batches/.head/images/XX/KEY/.names/quay.io/ns/tool:v1
    .../documents/KEY/.names/quay.io/ns/tool:v1     -> .flat/01/0123..
    .multiarch/arm64/quay.io/ns/tool:v1   -> .batches/.head/images/XX/KEY/.names/.multiarch/arm64/quay.io/ns/tool:v1

Nobody expands variant links here: where an image is for several platforms, its name leads to the first.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from services.common.digest import Digest
from services.repository.errors import ImageAdditionError
from services.repository.image_platforms import platform_images
from services.repository.images import MULTIARCH_DIRECTORY, ImageDocuments
from services.repository.public_names import (
    check_public_name,
    flat_home,
    is_public_target,
    machine_aliases,
    platform_links,
)

__all__ = [
    "NAMES",
    "alias_links",
    "check_names",
    "link_target",
    "name_links",
    "named_flats",
    "places_in",
    "write_names",
]

NAMES: Final = ".names"
"""Directory of an image's names, beside its documents."""
_DEPTH: Final = 5
"""Directories above those of names: `.batches/.batch-REVISION/documents/KEY/.names`."""


def name_links(documents: ImageDocuments) -> Mapping[str, Digest]:
    """Return the configurations of the flat images that the links of an image lead to, by the places of the links.

    Raises
    ------
    ImageRefusedError
        Its documents are not what they must be.
    """
    if documents.outputs.flat is None:
        return {}
    images = platform_images(documents)
    path = documents.name.path
    machines = {f"{MULTIARCH_DIRECTORY}/{machine}/{path}": config for machine, config in platform_links(images).items()}
    return {path: images[0].config_digest, **machines}


def check_names(root: Path, documents: ImageDocuments, target: str) -> None:
    """Make sure that an image can have its names.

    Parameters
    ----------
    root
        Root of the repository.
    documents
        The image.
    target
        Where its names lead: the directory of its documents in the index, relative to the root.

    Raises
    ------
    ImageAdditionError
        Something else is in the way.
    """
    if documents.outputs.flat is not None:
        check_public_name(documents.name)
    for place in name_links(documents):
        link = root / place
        for above in (root / parent for parent in Path(place).parents):
            if os.path.lexists(above) and (above.is_symlink() or not above.is_dir()):
                raise ImageAdditionError(f"{above} is no directory, and not this suite's: remove it")
        if os.path.lexists(link) and not (_is_ours(link, place, target) or _is_duccs(link, place)):
            raise ImageAdditionError(f"{link} is there already, and is no link of this suite's: remove it")


def link_target(place: str, target: str) -> str:
    """Return what is written in a public link; `target` is that of `check_names`."""
    return "../" * place.count("/") + f"{target}/{NAMES}/{place}"


def write_names(place: Path, documents: ImageDocuments) -> None:
    """Write where the names of an image lead, beside its documents."""
    for name, config in name_links(documents).items():
        link = place / NAMES / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../" * (_DEPTH + name.count("/")) + flat_home(config))


def places_in(place: Path) -> Iterator[str]:
    """Give the places of the public links of an image whose documents are in a directory."""
    names = place / NAMES
    for directory, inner, files in os.walk(names):
        for entry in (*inner, *files):
            if os.path.islink(os.path.join(directory, entry)):
                yield os.path.relpath(os.path.join(directory, entry), names)


def named_flats(root: Path, place: Path, target: str) -> Collection[Digest]:
    """Return the configurations of the flat images that are there, and that all links of an image to them lead to.

    Parameters
    ----------
    root
        Root of the repository.
    place
        Directory of the image's documents.
    target
        As for `check_names`.
    """
    led: set[Digest] = set()
    lost: set[Digest] = set()
    for name in places_in(place):
        config = Digest(os.path.basename(os.readlink(place / NAMES / name)))
        leads = _is_ours(root / name, name, target) and (root / name).exists()
        (led if leads else lost).add(config)
    return frozenset(led - lost)


def _is_duccs(link: Path, place: str) -> bool:
    return link.is_symlink() and is_public_target(place, os.readlink(link))


def _is_ours(link: Path, place: str, target: str) -> bool:
    return link.is_symlink() and os.readlink(link) == link_target(place, target)


def alias_links(root: Path, places: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Give the links of other names of processors below `.multiarch` that belong to those of some public links."""
    machines = {place.split("/")[1] for place in places if place.startswith(f"{MULTIARCH_DIRECTORY}/")}
    for machine in sorted(machines):
        for alias in machine_aliases(machine):
            link = root / MULTIARCH_DIRECTORY / alias
            if link.is_symlink() or not os.path.lexists(link):
                yield link, machine
