"""Options that several commands have."""

from collections.abc import Sequence
from pathlib import Path

import click

from services.common.command_line import bundle
from services.common.image_outputs import NO_OUTPUTS, ImageOutputs
from services.converter.wishlist.sources.download import Downloader
from services.converter.wishlist.sources.once import Loaded, read_once
from services.converter.wishlist.sources.places import parse_place

__all__ = ["JSON", "LISTS", "load"]

_PATIENCE = 60.0
"""Longest time to fetch a list, in seconds."""

JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON document, for scripts.")
LISTS = bundle(
    click.argument("places", metavar="FILE|DIRECTORY|URL...", nargs=-1, required=True),
    click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Certificates to trust as well.",
    ),
    click.option(
        "--credentials",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        envvar="CONVERTER_WISH_LISTS_CREDENTIALS",
        help="Directory of credentials for web servers of lists; CONVERTER_WISH_LISTS_CREDENTIALS if it is not given.",
    ),
)


async def load(
    places: Sequence[str],
    ca_file: Path | None,
    credentials: Path | None,
    *,
    recipe_outputs: ImageOutputs = NO_OUTPUTS,
) -> list[Loaded]:
    """Read wish lists.

    Parameters
    ----------
    places
        Where they are.
    ca_file
        Certificates to trust as well.
    credentials
        Directory of credentials for web servers.
    recipe_outputs
        In which further ways repositories show the images of DUCC's recipes.

    Raises
    ------
    InvalidValueError
        A place is none.
    """
    parsed = [parse_place(place) for place in places]
    async with Downloader.opened(patience=_PATIENCE, ca_file=ca_file, credentials=credentials) as downloader:
        return await read_once(parsed, downloader, recipe_outputs=recipe_outputs)
