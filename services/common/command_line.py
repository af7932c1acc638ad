"""What the suite's command lines have in common: options in bundles, output for scripts, exit statuses."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import click

from services.common.errors import SuiteError

__all__ = ["bundle", "report", "run_async", "write_document"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Result = TypeVar("_Result")


def bundle(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Make one decorator of several options, in their order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def write_document(document: object) -> None:
    """Write one JSON document to the standard output, for scripts."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def run_async(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a command's work; SIGTERM ends it as Ctrl-C does, so that nothing half done is left."""

    async def run() -> _Result:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    return asyncio.run(run())


def report(command: Callable[[], object], *, program: str, codes: Sequence[tuple[type[SuiteError], int]]) -> int:
    """Run a command, write what went wrong to the standard error output, and return the exit status.

    Parameters
    ----------
    command
        What click runs, not standalone.
    program
        Its name, for messages.
    codes
        Exit statuses of errors; the first that fits counts, and 1 where none does.
    """
    try:
        command()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        sys.stderr.write("terminated\n")
        return 128 + signal.SIGTERM
    except SuiteError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return next((code for kind, code in codes if isinstance(error, kind)), 1)
    return 0
