"""Exit statuses and messages of command lines."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from services.common.command_line import NumberRange, bundle, report, write_document
from services.common.errors import InvalidValueError, SuiteError


def fail(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (click.exceptions.Exit(7), 7, ""),
        (click.Abort(), 130, "interrupted\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (asyncio.CancelledError(), 143, "terminated\n"),
        (InvalidValueError("no such thing"), 2, "tool: no such thing\n"),
        (SuiteError("it broke"), 1, "tool: it broke\n"),
    ],
)
def test_errors(error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(fail(error), program="tool", codes=[(InvalidValueError, 2)]) == status
    assert capsys.readouterr().err == message


def test_success() -> None:
    assert report(lambda: None, program="tool", codes=[]) == 0


def test_wrong_arguments_are_shown_by_click(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(fail(click.UsageError("give one")), program="tool", codes=[]) == 2
    assert "give one" in capsys.readouterr().err


def test_a_bundle_keeps_the_order_of_its_options() -> None:
    @click.command()
    @bundle(click.option("--first"), click.option("--second"))
    def command(**_options: str) -> None:
        """Do nothing."""

    assert [parameter.name for parameter in command.params] == ["first", "second"]


def test_documents(capsys: pytest.CaptureFixture[str]) -> None:
    write_document({"a": [1]})
    assert json.loads(capsys.readouterr().out) == {"a": [1]}


@pytest.mark.parametrize("text", ["nan", "-nan", "0", "-1", "soon"])
def test_what_is_not_in_a_range_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        NumberRange(min=0, min_open=True).convert(text, None, None)
    assert NumberRange(min=0).convert("1e3", None, None) == 1000


WRITER = """
import sys
import click
from services.common.command_line import report, write_document, write_output
writes = {"text": lambda: write_output("x" * 100), "bytes": lambda: write_output(b"x" * 100_000),
          "document": lambda: write_document(["x" * 100_000])}
command = click.command()(writes[sys.argv[1]])
sys.exit(report(lambda: command.main([], standalone_mode=False), program="tool", codes=[]))
"""
"""A command as the suite's are run."""


def written(what: str, output: int) -> tuple[int, str]:
    """Return status and messages of a command that writes to an output; whoever gives it away closes it."""
    ended = subprocess.run(
        [sys.executable, "-c", WRITER, what], stdout=output, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(output)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("what", ["text", "bytes", "document"])
def test_an_output_that_is_full_is_told(what: str) -> None:
    told = "tool: the standard output cannot be written: No space left on device\n"
    assert written(what, os.open("/dev/full", os.O_WRONLY)) == (1, told)


@pytest.mark.parametrize("what", ["text", "bytes", "document"])
def test_a_reader_that_has_enough_is_told_nothing(what: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert written(what, writer) == (1, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_is_nothing_to_fail_at(closed: str) -> None:
    arguments = ["/bin/sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", WRITER, "text"]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout in ("", "x" * 100)
