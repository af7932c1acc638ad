"""Options that commands have in common, and the publisher that they mean."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import click

from services.common.command_line import NumberRange, bundle, write_document
from services.thinctl import tables
from services.thinctl.commands import Access
from services.thinctl.settings import publisher_token, publisher_url

__all__ = ["CHANGING", "READING", "changer", "demand_names_or_failed", "reader", "show_restarted", "timeout_option"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON document, for scripts.")
_PUBLISHER = click.option(
    "--publisher", metavar="URL", help="Where the publisher is  [env var: THINCTL_PUBLISHER; default: this machine's]"
)
READING: Final = bundle(_PUBLISHER, _JSON)
"""Options of commands that change nothing."""
CHANGING: Final = bundle(
    _PUBLISHER,
    click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File that holds the publisher's token  [env var: THINCTL_TOKEN_FILE]",
    ),
    _JSON,
)
"""Options of commands that change something."""


def timeout_option(seconds: float) -> Callable[[Any], Any]:
    """Give the option of the longest wait.

    Parameters
    ----------
    seconds
        Its default.
    """
    return click.option(
        "--timeout",
        type=NumberRange(min=0, min_open=True),
        default=seconds,
        show_default=True,
        help="Longest wait, in seconds.",
    )


def demand_names_or_failed(names: Collection[str], *, failed: bool, wait: bool, things: str) -> None:
    """Make sure that a command to try things again says which.

    Parameters
    ----------
    names
        Those that are named.
    failed, wait
        Whether all that have failed are meant, and whether their end is to be waited for.
    things
        What they are.

    Raises
    ------
    click.UsageError
        It says neither or both, or is to wait for all.
    """
    if bool(names) == failed:
        raise click.UsageError(f"name {things}, or give --failed")
    if failed and wait:
        raise click.UsageError(f"--wait is for {things} that are named; thinctl status tells of all")


def show_restarted(count: int, things: str, *, as_json: bool) -> None:
    """Tell how many things are tried again."""
    if as_json:
        write_document({"restarted": count})
    else:
        tables.show(f"{count} {things} are tried again")


def reader(publisher: str | None) -> Access:
    """Return the access of a command that changes nothing, by the value of its option."""
    return Access(url=publisher_url(publisher), token=None)


def changer(publisher: str | None, token_file: Path | None) -> Access:
    """Return the access of a command that changes something, by the values of its options."""
    return Access(url=publisher_url(publisher), token=publisher_token(token_file))
