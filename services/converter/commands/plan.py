"""`converter plan`."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import click

from services.common.command_line import run_async, write_document
from services.common.image_outputs import read_outputs
from services.common.publisher_api import PublisherApi
from services.common.repository_name import RepositoryName
from services.converter.commands.options import JSON, LISTS, load
from services.converter.commands.outlook import Key, Outlook, look_ahead
from services.converter.commands.plan_table import plan_document, show_plan
from services.converter.commands.planned import Plan, make_plan
from services.converter.commands.tags import RegistryTags
from services.converter.errors import SourceUnreachableError, WishListError
from services.converter.wishlist.problems import Severity
from services.converter.wishlist.sources.once import Loaded
from services.registry.client import RegistryClient
from services.registry.settings import RegistrySettings

__all__ = ["plan"]


@click.command(epilog="Example: converter plan --tags wishes.yaml")
@LISTS
@click.option("--tags", is_flag=True, help="Ask the registries which tags there are.")
@click.option(
    "--publisher",
    "publishers",
    multiple=True,
    metavar="REPOSITORY=URL",
    help="Ask the publisher of a repository what is there, and the registries what tags stand for, and show what would "
    "be done; may be given again.",
)
@click.option(
    "--ducc-outputs",
    type=click.Choice(["flat", "podman"]),
    multiple=True,
    help="In which further ways repositories show the images of DUCC's recipes, as CONVERTER_DUCC_OUTPUTS says for the "
    "converter; may be given again.",
)
@JSON
def plan(
    places: tuple[str, ...],
    *,
    ca_file: Path | None,
    credentials: Path | None,
    tags: bool,
    publishers: tuple[str, ...],
    ducc_outputs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show which images wish lists come to, and why. Nothing is changed anywhere.

    How registries are spoken to is in the environment (REGISTRY_*), as for the converter.
    """
    urls = dict(map(_publisher, publishers))
    outputs = read_outputs({name: {} for name in ducc_outputs})
    loaded = run_async(load(places, ca_file, credentials, recipe_outputs=outputs))
    made, outlooks = run_async(_planned(loaded, urls, with_tags=tags))
    if as_json:
        write_document(plan_document(made, outlooks))
    else:
        show_plan(made, outlooks)


def _publisher(text: str) -> tuple[RepositoryName, str]:
    name, mark, url = text.partition("=")
    if not mark or not url.startswith(("http://", "https://")):
        raise click.UsageError(f"--publisher {text[:200]!r} is not REPOSITORY=http(s)://HOST[:PORT]")
    return RepositoryName(name), url


async def _planned(
    loaded: Sequence[Loaded], publishers: Mapping[RepositoryName, str], *, with_tags: bool
) -> tuple[Plan, dict[Key, Outlook]]:
    for each in loaded:
        if each.trouble is not None:
            raise SourceUnreachableError(each.trouble)
        if each.wish_list is None:
            raise WishListError(f"nothing of {each.source} can be used, `converter check` says why")
        errors = sum(problem.severity is Severity.ERROR for problem in each.problems)
        if errors:
            click.echo(f"{each.source} has {errors} errors, of which `converter check` tells", err=True)
    lists = [each.wish_list for each in loaded if each.wish_list is not None]
    wishes = [wish for each in lists for wish in each.wishes]
    policies = [policy for each in lists for policy in each.policies]
    if not with_tags and not publishers:
        return await make_plan(wishes, policies, None), {}
    async with AsyncExitStack() as stack:
        client = RegistryClient(options=RegistrySettings.load().options())
        registries = RegistryTags(await stack.enter_async_context(client))
        made = await make_plan(wishes, policies, registries)
        if not publishers:
            return made, {}
        images = {
            name: (await stack.enter_async_context(PublisherApi(url=url))).images for name, url in publishers.items()
        }
        whole = all(each.complete for each in lists)
        return made, await look_ahead(made, registries, images, whole=whole)
