"""Exit statuses and messages of command lines."""

import asyncio
import json
from collections.abc import Callable

import click
import pytest

from services.common.command_line import bundle, report, write_document
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
