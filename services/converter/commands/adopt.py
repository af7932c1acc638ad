"""`converter adopt`."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click
from pydantic import SecretStr

from services.common.command_line import run_async, write_document
from services.common.image_name import ImageName
from services.common.publisher_api import PublisherApi
from services.common.settings import read_secret
from services.converter.adoption.inventory import take_inventory
from services.converter.adoption.model import FoundImage, Inventory, Verdict
from services.converter.adoption.taking import Taken, take_over
from services.converter.adoption.wished import is_wished
from services.converter.commands.adopt_table import inventory_document, show_inventory, show_taken, taken_document
from services.converter.commands.options import load
from services.converter.errors import SourceUnreachableError, TakeOverError, WishListError
from services.converter.model import Wish
from services.converter.wishlist.problems import Severity

__all__ = ["adopt"]


@click.command(
    epilog="Example: converter adopt --repository-root /cvmfs/unpacked.example.org --contents --list recipe.yaml"
)
@click.option(
    "--repository-root",
    "root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    metavar="DIRECTORY",
    help="The repository as clients see it, such as /cvmfs/unpacked.example.org; it is only read.",
)
@click.option(
    "--contents", is_flag=True, help="Look at all files of layers too: .wh. files, owners. That may take hours."
)
@click.option(
    "--list",
    "places",
    multiple=True,
    metavar="FILE|DIRECTORY|URL",
    help="A wish list: it is told which images none names, and --apply leaves those that one names to the converter's "
    "rounds, which verify their signatures; may be given again.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="What is written."
)
@click.option("--apply", is_flag=True, help="Ask the publisher for the images that are to be made anew.")
@click.option("--publisher", metavar="URL", help="The publisher of the repository, for --apply.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CONVERTER_PUBLISHER_TOKEN_FILE",
    help="File that holds the publisher's token; CONVERTER_PUBLISHER_TOKEN_FILE if it is not given.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait until the publisher has published what it is asked for.")
def adopt(
    *,
    root: Path,
    contents: bool,
    places: tuple[str, ...],
    form: Literal["text", "json"],
    apply: bool,
    publisher: str | None,
    token_file: Path | None,
    no_wait: bool,
) -> None:
    """Take over the images of a repository that DUCC made: tell what there is of each, and what is wrong with it.

    Nothing is changed anywhere without --apply. With it the publisher is asked for each image that this suite has not
    published, in the ways in which the repository shows it: what its tag stands for is verified and published in the
    place of what DUCC made, by the same paths, in one revision. It can be ended and repeated at any time.
    """
    if apply and publisher is None:
        raise click.UsageError("--apply needs --publisher")
    wishes = run_async(_wishes(places))
    inventory = run_async(asyncio.to_thread(take_inventory, root, contents=contents))
    unlisted = {each.name for each in inventory.images if not is_wished(each.name, wishes)} if places else None
    taken = None
    if publisher is not None and apply:
        token = None if token_file is None else read_secret("--token-file", token_file)
        taken = run_async(_take_over(_wanted(inventory, unlisted), publisher, token, wait=not no_wait))
    if form == "json":
        outcome = {} if taken is None else {"taken_over": taken_document(taken)}
        write_document(inventory_document(inventory, unlisted) | outcome)
    elif taken is None:
        show_inventory(inventory, unlisted)
    else:
        show_taken(taken)
    if taken is not None and taken.failed:
        raise TakeOverError(f"{len(taken.failed)} images could not be published; what DUCC made of them stays")


async def _wishes(places: Sequence[str]) -> list[Wish]:
    """Read wish lists, which must be whole: what they do not name is asked for without their policies."""
    wishes: list[Wish] = []
    for each in await load(places, None, None):
        if each.trouble is not None:
            raise SourceUnreachableError(each.trouble)
        if each.wish_list is None or any(problem.severity is Severity.ERROR for problem in each.problems):
            raise WishListError(f"{each.source} has errors, `converter check` says which")
        wishes += each.wish_list.wishes
    return wishes


def _wanted(inventory: Inventory, unlisted: set[ImageName] | None) -> list[FoundImage]:
    return [
        image
        for image in inventory.images
        if image.verdict is Verdict.ANEW and (unlisted is None or image.name in unlisted)
    ]


async def _take_over(images: Sequence[FoundImage], url: str, token: SecretStr | None, *, wait: bool) -> Taken:
    async with PublisherApi(url=url, token=token) as publisher:
        return await take_over(images, publisher.images, wait=wait, told=_tell)


def _tell(name: ImageName, failure: str | None) -> None:
    sys.stderr.write(f"{name}: {failure or 'published'}\n")
