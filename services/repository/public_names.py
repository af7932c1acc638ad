"""The names by which people find flat images: links as DUCC makes them, so that nobody has to learn others.

An image for one platform has one link, relative, to its root file system::

    quay.io/ns/tool:v1                            -> ../../.flat/01/0123..

One for several has a link for each, below the name of the processor, and a variant link, of which the client of CVMFS
expands what is in the parentheses, by its own environment::

    .multiarch/amd64/quay.io/ns/tool:v1           -> ../../../../.flat/01/0123..
    .multiarch/arm64:v8/quay.io/ns/tool:v1        -> ../../../../.flat/45/4567..
    .multiarch/arm64/quay.io/ns/tool:v1           -> ../../../../.flat/45/4567..
    .multiarch/aarch64                            -> arm64
    quay.io/ns/tool:v1                            -> ../../.multiarch/$(CVMFS_ARCH:-amd64)/quay.io/ns/tool:v1

A processor without its variant, and with the usual one, mean the same; whichever of the two an image has, it has both.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.repository.errors import ImageRefusedError
from services.repository.image_platforms import PlatformImage
from services.repository.images import MULTIARCH_DIRECTORY

__all__ = [
    "FLAT_DIRECTORY",
    "check_public_name",
    "flat_home",
    "flat_of_target",
    "is_public_target",
    "machine_aliases",
    "platform_links",
    "public_links",
]

FLAT_DIRECTORY: Final = ".flat"
"""Directory of the root file systems of all flat images, relative to the root of the repository."""

_USUAL: Final = {"arm64": "arm64:v8", "arm": "arm:v7"}
"""The usual variants of processors that have several."""
_ALIASES: Final = {
    "amd64": ("x86_64", "x86-64"),
    "arm64": ("aarch64",),
    "arm": ("armhf", "armv7l"),
    "arm:v6": ("armel", "armv6l"),
    "386": ("i386", "i686"),
}
"""What kernels and distributions call processors: further links to the directories of some."""
_DEFAULT: Final = "amd64"
"""The processor of a client that does not say which it has, as long as an image is for it."""
_RESERVED: Final = frozenset({"podmanStore", "podmanStores"})
"""Directories of the repository whose names could be those of registries."""
_TARGET: Final = re.compile(
    r"(?P<up>(?:\.\./)+)(?:\.flat/(?P<shard>[0-9a-f]{2})/(?P<config>(?P=shard)[0-9a-f]{62})"
    r"|\.multiarch/\$\(CVMFS_ARCH:-[a-z0-9_:.-]{1,64}\)/(?P<name>.+))"
)


def flat_home(config: Digest) -> str:
    """Path of the root of a flat image, relative to the root of the repository.

    Parameters
    ----------
    config
        SHA-256 of the image's configuration.
    """
    return f"{FLAT_DIRECTORY}/{config[:2]}/{config}"


def check_public_name(name: ImageName) -> None:
    """Make sure that an image can have a name in the tree itself.

    Raises
    ------
    ImageRefusedError
        Its link would be where the repository has something else.
    """
    if name.registry in _RESERVED:
        raise ImageRefusedError(
            f"the image {name} cannot be flat, since /{name.registry} is no registry's: publish it by another name"
        )


def platform_links(images: Sequence[PlatformImage]) -> Mapping[str, Digest]:
    """Return the configurations of the images that an image's directories below `.multiarch` lead to.

    Parameters
    ----------
    images
        Its images for all platforms.

    Returns
    -------
    Mapping
        By the names of the directories: `ARCHITECTURE[:VARIANT]`. Empty where there is one platform only.
    """
    if len(images) == 1:
        return {}
    links = {image.machine: image.config_digest for image in images}
    for architecture, usual in _USUAL.items():
        if architecture in links or usual in links:
            config = links.get(architecture) or links[usual]
            links.setdefault(architecture, config)
            links.setdefault(usual, config)
    for image in images:
        links.setdefault(image.machine.partition(":")[0], image.config_digest)
    return links


def public_links(name: ImageName, images: Sequence[PlatformImage]) -> Mapping[str, str]:
    """Return all links of an image: where they lead, by their places, both as they are written.

    Parameters
    ----------
    name, images
        The image, and its images for all platforms.
    """
    machines = platform_links(images)
    up = "../" * name.path.count("/")
    if not machines:
        return {name.path: up + flat_home(images[0].config_digest)}
    usual = _DEFAULT if _DEFAULT in machines else images[0].machine.partition(":")[0]
    links = {name.path: f"{up}{MULTIARCH_DIRECTORY}/$(CVMFS_ARCH:-{usual})/{name.path}"}
    for machine, config in machines.items():
        place = f"{MULTIARCH_DIRECTORY}/{machine}/{name.path}"
        links[place] = "../" * place.count("/") + flat_home(config)
    return links


def machine_aliases(machine: str) -> Sequence[str]:
    """Return the names of links beside the directory of a processor below `.multiarch` that lead to it."""
    return _ALIASES.get(machine, ())


def flat_of_target(target: str) -> Digest | None:
    """Return the configuration of the flat image that a link leads to; None for one that leads elsewhere."""
    match = _TARGET.fullmatch(target)
    return None if match is None or match["config"] is None else Digest(match["config"])


def is_public_target(place: str, target: str) -> bool:
    """Tell whether a link at a place leads where those lead that this suite, or DUCC, makes there.

    Parameters
    ----------
    place
        Relative to the root of the repository.
    target
        What is written in the link.
    """
    match = _TARGET.fullmatch(target)
    if match is None or match["up"].count("/") != place.count("/"):
        return False
    return match["name"] is None or match["name"] == place
