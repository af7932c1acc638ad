"""Options that commands have in common, and the publisher that they mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from services.common.command_line import NumberRange, bundle
from services.thinctl.commands import Access
from services.thinctl.settings import publisher_token, publisher_url

__all__ = ["CHANGING", "READING", "changer", "reader", "timeout_option"]

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


def reader(publisher: str | None) -> Access:
    """Return the access of a command that changes nothing, by the value of its option."""
    return Access(url=publisher_url(publisher), token=None)


def changer(publisher: str | None, token_file: Path | None) -> Access:
    """Return the access of a command that changes something, by the values of its options."""
    return Access(url=publisher_url(publisher), token=publisher_token(token_file))
