"""`converter check`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from services.common.command_line import run_async, write_document, write_output
from services.converter.commands.options import JSON, LISTS, load
from services.converter.commands.pushers import other_pushers
from services.converter.errors import SourceUnreachableError, WishListError
from services.converter.model import Wish
from services.converter.wishlist.conflicts import conflicts
from services.converter.wishlist.problems import Problem, Severity
from services.converter.wishlist.sources.once import Loaded
from services.registry.settings import RegistrySettings

__all__ = ["check"]


@click.command(epilog="Example: converter check --strict recipe.yaml")
@LISTS
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@JSON
def check(
    places: tuple[str, ...], *, ca_file: Path | None, credentials: Path | None, strict: bool, as_json: bool
) -> None:
    """Check wish lists: every problem is told, with line, column and remedy. No registry is asked.

    Where REGISTRY_CREDENTIALS or REGISTRY_DOCKER_CONFIG is set, it also sees whose credentials push thin images.
    """
    loaded, found = run_async(_checked(places, ca_file, credentials))
    if as_json:
        write_document(_document(loaded, found))
    else:
        write_output("".join(f"{problem}\n" for problem in found))
        write_output("".join(f"{each.source}: {_summary(each, found)}\n" for each in loaded))
    unread = [each for each in loaded if each.trouble is not None]
    if unread:
        raise SourceUnreachableError("; ".join(str(each.trouble) for each in unread))
    wrong = [problem for problem in found if strict or problem.severity is Severity.ERROR]
    if wrong:
        raise WishListError(f"{_count(len(wrong), 'problem')}, see above")


async def _checked(
    places: Sequence[str], ca_file: Path | None, credentials: Path | None
) -> tuple[list[Loaded], list[Problem]]:
    """Read lists; return them with what is wrong in them, with them together, and with the credentials for them."""
    loaded = await load(places, ca_file, credentials)
    wishes = [wish for each in loaded if each.wish_list is not None for wish in each.wish_list.wishes]
    found = [*(problem for each in loaded for problem in each.problems), *_conflicts(wishes)]
    settings = RegistrySettings.load()
    if settings.credentials is not None or settings.docker_config is not None:
        found += await other_pushers(wishes, settings.options().credentials)
    return loaded, sorted(found, key=lambda problem: problem.origin)


def _conflicts(wishes: Sequence[Wish]) -> list[Problem]:
    found = []
    for conflict in conflicts(wishes):
        text = f"another wish for {conflict.name} says something else; the one at {conflict.decides.origin} counts"
        found += [Problem(other.origin, Severity.WARNING, text) for other in conflict.others]
    return found


def _summary(loaded: Loaded, problems: Sequence[Problem]) -> str:
    if loaded.trouble is not None:
        return "not read"
    wishes = 0 if loaded.wish_list is None else len(loaded.wish_list.wishes)
    severities = [problem.severity for problem in problems if problem.origin.source == loaded.source]
    errors = severities.count(Severity.ERROR)
    usable = "" if loaded.wish_list is not None else ", nothing of it can be used"
    counts = (_count(wishes, "wish"), _count(errors, "error"), _count(severities.count(Severity.WARNING), "warning"))
    return f"{', '.join(counts)}{usable}"


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("sh") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"


def _document(loaded: Sequence[Loaded], problems: Sequence[Problem]) -> dict[str, Any]:
    return {
        "lists": [
            {
                "source": each.source,
                "wishes": None if each.wish_list is None else len(each.wish_list.wishes),
                "trouble": each.trouble,
            }
            for each in loaded
        ],
        "problems": [
            {
                "source": problem.origin.source,
                "line": problem.origin.line,
                "column": problem.origin.column,
                "severity": problem.severity.value,
                "text": problem.text,
            }
            for problem in problems
        ],
    }
