"""What the suite's command lines have in common: options in bundles, output for scripts, exit statuses."""

import asyncio
import errno
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import click

from services.common.errors import SuiteError

__all__ = ["NumberRange", "StandardOutputError", "bundle", "report", "run_async", "write_document", "write_output"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Result = TypeVar("_Result")


class StandardOutputError(SuiteError):
    """The standard output does not take what a command writes: a disk is full, say."""


class _ReaderGoneError(StandardOutputError):
    """Whoever read the standard output has enough, as `head` does, and there is nobody to tell."""


class NumberRange(click.FloatRange):
    """Numbers in a range, as an option's type; `nan`, which compares with nothing, would be in every one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - as click has it
        """Read a value."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is no number.", param, ctx)
        return number


def bundle(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Make one decorator of several options, in their order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def write_document(document: object) -> None:
    """Write one JSON document to the standard output, for scripts; raises as `write_output`."""
    write_output(json.dumps(document, indent=2) + "\n")


def write_output(content: str | bytes) -> None:
    """Write to the standard output, and see that it has taken it.

    Raises
    ------
    StandardOutputError
        It has not.
    """
    try:
        if isinstance(content, bytes):
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
        else:
            sys.stdout.write(content)
        sys.stdout.flush()
    except OSError as error:
        _drop_output()
        if error.errno == errno.EPIPE:
            raise _ReaderGoneError from None
        raise StandardOutputError(f"the standard output cannot be written: {error.strerror}") from None


def _drop_output() -> None:
    """Let what is buffered go nowhere: the interpreter writes it when it ends, and would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


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
    _open_closed()
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
        if not isinstance(error, _ReaderGoneError):
            sys.stderr.write(f"{program}: {error}\n")
        return next((code for kind, code in codes if isinstance(error, kind)), 1)
    return 0


def _open_closed() -> None:
    """Let what is written to a closed standard output or error (`>&-`) go nowhere, not to a file opened later."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
