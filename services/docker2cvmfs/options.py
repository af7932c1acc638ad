"""Options that several commands have, and what is made of them."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import click
from pydantic import SecretStr

from services.common.command_line import NumberRange, bundle
from services.common.image_outputs import ImageOutputs
from services.common.layout import LayerLayout
from services.docker2cvmfs.conversion import Conversion
from services.docker2cvmfs.settings import Docker2CvmfsSettings
from services.registry.options import RegistryOptions
from services.registry.platform import Platform
from services.registry.reference import ImageReference, registry_of

__all__ = [
    "ALL_PLATFORMS",
    "JSON",
    "LAYOUT",
    "PLATFORM",
    "PUBLISHER",
    "REGISTRY",
    "VIA",
    "WAIT",
    "Way",
    "conversion_of",
    "need_publisher",
    "publisher_of",
    "way_of",
]


class Via(StrEnum):
    """How layers come to the publisher."""

    PUBLISHER = "publisher"
    BUCKET = "bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How layers come to the publisher, and what that takes."""

    publisher: str | None
    """URL of the publisher; None if it is not known."""
    token: SecretStr | None
    """What it is shown with an ask for an image; None for the bucket."""
    only: bool
    """Whether there is no other way where the publisher offers no images."""


JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON document, for scripts.")
REGISTRY = bundle(
    click.argument("image"),
    click.option("--insecure", is_flag=True, help="Speak plain HTTP to the registries."),
    click.option(
        "--insecure-registry",
        "insecure_registries",
        multiple=True,
        metavar="HOST[:PORT]",
        help="Speak plain HTTP to this registry alone; may be given again.",
    ),
    click.option(
        "--ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Certificates to trust as well."
    ),
)
PLATFORM = click.option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="Which image of several [default: this machine's]."
)
ALL_PLATFORMS = click.option("--all-platforms", is_flag=True, help="The images for all platforms.")
LAYOUT = click.option(
    "--layout",
    type=click.Choice([layout.value for layout in LayerLayout]),
    default=LayerLayout.FLAT.value,
    show_default=True,
    help="Paths that the descriptor names; ducc is unpacked.cern.ch's.",
)
PUBLISHER = bundle(
    click.option(
        "--publisher",
        metavar="URL",
        help="Where the repository's publisher is [default: DOCKER2CVMFS_PUBLISHER in the environment].",
    ),
)
VIA = click.option(
    "--via",
    type=click.Choice([via.value for via in Via]),
    help="How layers come to the publisher: it fetches the image from its registry, or finds them in the bucket "
    "[default: publisher, where it can and DOCKER2CVMFS_TOKEN is set, or else bucket].",
)
OUTPUTS = click.option(
    "--output",
    "outputs",
    metavar="NAME[:DETAIL]",
    multiple=True,
    help="Have the repository show the image in a further way: flat, flat:others-read, podman, podman:STORE; may be "
    "given again. Only a publisher that fetches the image itself can.",
)
WAIT = bundle(
    click.option("--no-wait", is_flag=True, help="End when the layers are uploaded; the publisher goes on by itself."),
    click.option(
        "--timeout",
        type=NumberRange(min=0, min_open=True),
        default=3600,
        show_default=True,
        help="Longest wait for the publisher, in seconds.",
    ),
)


def conversion_of(
    image: str,
    *,
    insecure: bool,
    insecure_registries: tuple[str, ...],
    ca_file: Path | None,
    platform: str | None = None,
    all_platforms: bool = False,
) -> Conversion:
    """Return what a command is about."""
    if platform is not None and all_platforms:
        raise click.UsageError("--platform and --all-platforms exclude each other")
    wanted = Platform.local() if platform is None else Platform.parse(platform)
    return Conversion(
        reference=ImageReference.parse(image),
        platform=None if all_platforms else wanted,
        options=RegistryOptions(
            insecure=insecure, insecure_registries=frozenset(map(registry_of, insecure_registries)), ca_file=ca_file
        ),
    )


def publisher_of(option: str | None) -> str | None:
    """Return the URL of the publisher that is given or configured."""
    configured = Docker2CvmfsSettings.load().publisher
    return option or (None if configured is None else str(configured))


def need_publisher(publisher: str | None, *, no_wait: bool = False) -> None:
    """Refuse to go on without a publisher where one is waited for."""
    if publisher is None and not no_wait:
        raise click.UsageError("--publisher is missing: it says when the layers are there")


def way_of(publisher: str | None, via: str | None) -> Way:
    """Return how layers come to the publisher, by what is given and configured."""
    token = Docker2CvmfsSettings.load().token
    if via != Via.PUBLISHER:
        return Way(publisher=publisher, token=token if via is None and publisher is not None else None, only=False)
    if publisher is None or token is None:
        raise click.UsageError("--via publisher needs --publisher and its token, in DOCKER2CVMFS_TOKEN or _TOKEN_FILE")
    return Way(publisher=publisher, token=token, only=True)


def way_with(way: Way, outputs: ImageOutputs) -> Way:
    """Return the way by which an image with outputs comes to the publisher: the publisher must fetch it itself."""
    if outputs and way.token is None:
        raise click.UsageError(
            "--output needs --publisher and its token, in DOCKER2CVMFS_TOKEN or _TOKEN_FILE, and no --via bucket"
        )
    return way
