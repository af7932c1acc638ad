"""`converter plan`."""

from collections.abc import Sequence
from pathlib import Path

import click

from services.common.command_line import run_async, write_document
from services.converter.commands.options import JSON, LISTS, load
from services.converter.commands.plan_table import plan_document, show_plan
from services.converter.commands.planned import Plan, make_plan
from services.converter.commands.tags import RegistryTags
from services.converter.errors import SourceUnreachableError, WishListError
from services.converter.model import SignaturePolicy, Wish
from services.converter.wishlist.problems import Severity
from services.registry.client import RegistryClient
from services.registry.options import RegistryOptions

__all__ = ["plan"]


@click.command(epilog="Example: converter plan --tags wishes.yaml")
@LISTS
@click.option("--tags", is_flag=True, help="Ask the registries which tags there are.")
@JSON
def plan(places: tuple[str, ...], *, ca_file: Path | None, tags: bool, as_json: bool) -> None:
    """Show which images wish lists come to, and why. Nothing is changed anywhere."""
    made = run_async(_planned(places, ca_file, with_tags=tags))
    if as_json:
        write_document(plan_document(made))
    else:
        show_plan(made)


async def _planned(places: Sequence[str], ca_file: Path | None, *, with_tags: bool) -> Plan:
    loaded = await load(places, ca_file)
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
    return await _with_registries(wishes, policies, with_tags=with_tags)


async def _with_registries(wishes: Sequence[Wish], policies: Sequence[SignaturePolicy], *, with_tags: bool) -> Plan:
    if not with_tags:
        return await make_plan(wishes, policies, None)
    async with RegistryClient(options=RegistryOptions()) as registry:
        return await make_plan(wishes, policies, RegistryTags(registry))
