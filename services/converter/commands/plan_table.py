"""A plan as people and as scripts read it."""

import sys
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from services.common.command_line import write_output
from services.common.errors import InvalidValueError
from services.common.image_outputs import outputs_document
from services.converter.commands.outlook import Key, Outlook
from services.converter.commands.planned import Plan, selection_text
from services.converter.model import Retention, ThinTarget
from services.converter.wishlist.output_names import output_name
from services.converter.wishlist.selection import Wanted

__all__ = ["plan_document", "show_plan"]

_TITLES: Final = ("IMAGE", "REPOSITORY", "PLATFORMS", "OUTPUTS", "THIN IMAGES", "PRIORITY", "WHY", "WISHED AT")
_WIDE: Final = 400
"""Columns where the output is no terminal: nothing is to be cut off."""


def show_plan(plan: Plan, outlooks: Mapping[Key, Outlook]) -> None:
    """Write a plan as a table to the standard output.

    Parameters
    ----------
    plan
        The images.
    outlooks
        What would be done about them; empty where nobody was asked.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (*_TITLES, *(("WHAT WOULD BE DONE",) if outlooks else ())):
        table.add_column(title, overflow="fold")
    for wanted in plan.wanted:
        wish = wanted.wish
        table.add_row(
            wanted.name if wanted.digest is None else f"{wanted.name}\n{wanted.digest.oci}",
            wanted.repository,
            "\n".join(map(str, wish.platforms)),
            "\n".join(outputs_document(wish.outputs)),
            "\n".join(_thin(wanted)),
            str(wish.priority),
            plan.reasons[wanted.repository, wanted.name],
            str(wish.origin),
            _text(outlooks.get((wanted.repository, wanted.name))),
        )
    for each in plan.open:
        wish = each.wish
        what = f"{wish.registry}/{wish.repository}: {selection_text(wish)}"
        thin = "\n".join(target.template for target in wish.thin)
        platforms = "\n".join(map(str, wish.platforms))
        repositories = "\n".join(wish.repositories)
        outputs = "\n".join(outputs_document(wish.outputs))
        table.add_row(what, repositories, platforms, outputs, thin, str(wish.priority), each.reason, str(wish.origin))
    for (repository, name), outlook in _unwished(plan, outlooks).items():
        table.add_row(name, repository, "", "", "", "", "", "", _text(outlook))
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False, emoji=False)
    with console.capture() as written:
        console.print(table)
    write_output(written.get())


def plan_document(plan: Plan, outlooks: Mapping[Key, Outlook]) -> dict[str, Any]:
    """Return a plan for scripts; parameters as of `show_plan`."""
    return {
        "images": [
            {
                "name": str(wanted.name),
                "repository": str(wanted.repository),
                "digest": None if wanted.digest is None else wanted.digest.oci,
                "platforms": [str(platform) for platform in wanted.wish.platforms],
                "thin": _thin(wanted),
                "outputs": outputs_document(wanted.wish.outputs),
                "policies": [policy.name for policy in wanted.policies(plan.policies)],
                "retention": _retention(wanted.wish.retention),
                "interval": wanted.wish.interval,
                "priority": wanted.wish.priority,
                "may_fail": wanted.wish.may_fail,
                "why": plan.reasons[wanted.repository, wanted.name],
                "origin": str(wanted.wish.origin),
                "others": [str(other.origin) for other in wanted.others],
                "outlook": _outlook(outlooks.get((wanted.repository, wanted.name))),
            }
            for wanted in plan.wanted
        ],
        "open": [
            {
                "registry": each.wish.registry,
                "repository": each.wish.repository,
                "selection": selection_text(each.wish),
                "reason": each.reason,
                "origin": str(each.wish.origin),
            }
            for each in plan.open
        ],
        "unwished": [
            {"name": str(name), "repository": str(repository), "outlook": _outlook(outlook)}
            for (repository, name), outlook in _unwished(plan, outlooks).items()
        ],
    }


def _text(outlook: Outlook | None) -> str:
    return "" if outlook is None else f"{outlook.action}: {outlook.reason}"


def _outlook(outlook: Outlook | None) -> dict[str, str] | None:
    return None if outlook is None else {"action": outlook.action.value, "reason": outlook.reason}


def _unwished(plan: Plan, outlooks: Mapping[Key, Outlook]) -> dict[Key, Outlook]:
    wanted = {(each.repository, each.name) for each in plan.wanted}
    return {key: outlook for key, outlook in outlooks.items() if key not in wanted}


def _thin(wanted: Wanted) -> list[str]:
    targets = (target for target in wanted.wish.thin if target.repository == wanted.repository)
    return [_thin_name(target, wanted) for target in targets]


def _thin_name(target: ThinTarget, wanted: Wanted) -> str:
    try:
        return output_name(target.template, wanted.wish, wanted.name, wanted.digest)
    except InvalidValueError as error:
        return f"none: {error}"


def _retention(retention: Retention) -> dict[str, float | None]:
    return {"replaced": retention.replaced, "dropped": retention.dropped, "gone": retention.gone}
