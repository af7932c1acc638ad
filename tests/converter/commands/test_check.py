"""`converter check`."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from services.common.errors import InvalidValueError
from services.converter.commands.check import check
from services.converter.errors import SourceUnreachableError, WishListError
from tests.support.commands import run_module
from tests.support.wish_lists import FIFTY

_HEAD = "version: 2\ndefaults: {repositories: a.example.org}\nimages:\n"


def _run(*arguments: object) -> None:
    try:
        check.main([str(argument) for argument in arguments], prog_name="check", standalone_mode=False)
    except click.ClickException as error:
        pytest.fail(error.format_message())


def _file(tmp_path: Path, content: str, name: str = "list.yaml") -> Path:
    (tmp_path / name).write_text(content)
    return tmp_path / name


def _document(capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401 - a JSON document
    return json.loads(capsys.readouterr().out)


def test_a_list_without_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, FIFTY)
    _run(path)
    warning, summary = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"{path}:55:7: warning: ")
    assert summary == f"{path}: 49 wishes, 0 errors, 1 warning"


def test_warnings_fail_where_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(WishListError, match="1 problem, see above"):
        _run(_file(tmp_path, FIFTY), "--strict")


def test_every_error_is_told_in_the_order_of_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, f"{_HEAD}- q.io/n/a:1\n- fedora\n- {{image: 'q.io/n/a:2', foo: 1}}\n")
    with pytest.raises(WishListError, match="2 problems"):
        _run(path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [f"{path}:5:3:", f"{path}:6:25:", f"{path}:"]
    assert lines[-1] == f"{path}: 1 wish, 2 errors, 0 warnings"


def test_a_list_of_which_nothing_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, "version: 2\nimags: []\n")
    with pytest.raises(WishListError):
        _run(path)
    assert f"{path}: 0 wishes, 1 error, 0 warnings, nothing of it can be used" in capsys.readouterr().out


def test_wishes_that_say_different_things_about_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = _file(tmp_path, f"{_HEAD}- q.io/n/a:1\n- q.io/n/b:1\n- {{image: 'q.io/n/c:v*', newest: 1}}\n", "a.yaml")
    second = _file(
        tmp_path,
        f"{_HEAD}- {{image: 'q.io/n/a:1', priority: 1, platforms: linux/arm64}}\n"
        "- {image: 'q.io/n/b:1', interval: 1h}\n"
        "- {image: 'q.io/n/c:v1', may_fail: true}\n- {image: 'q.io/n/a:1', repositories: b.c, may_fail: true}\n",
        "b.yaml",
    )
    _run(tmp_path, "--json")
    problems = _document(capsys)["problems"]
    assert [(problem["source"], problem["line"]) for problem in problems] == [(str(first), 4), (str(second), 6)]
    assert problems[0]["text"] == f"another wish for q.io/n/a:1 says something else; the one at {second}:4:3 counts"
    assert problems[1]["severity"] == "warning"


def _credentials(directory: Path, user: str) -> None:
    directory.mkdir(parents=True)
    (directory / "username").write_text(user)
    (directory / "password").write_text("a secret that nobody sees")


def test_credentials_for_thin_images_are_those_of_the_list_s_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _file(tmp_path, FIFTY)
    registry = tmp_path / "credentials" / "gitlab-registry.cern.ch"
    _credentials(registry, "somebody")
    monkeypatch.setenv("REGISTRY_CREDENTIALS", str(registry.parent))
    _run(path)
    output = capsys.readouterr().out
    told, _, summary = output.splitlines()
    assert told == (
        f"{path}:6:7: warning: 'cvmfsunpacker' is to push thin images, and the credentials for gitlab-registry.cern.ch "
        f"in {registry} are of 'somebody': put those of 'cvmfsunpacker' there, or name 'somebody' as 'user'"
    )
    assert summary == f"{path}: 49 wishes, 0 errors, 2 warnings"
    assert "secret" not in output
    # Of a longer prefix, where thin images go.
    _credentials(registry / "unpacked" / "sync", "cvmfsunpacker")
    _run(path)
    assert len(capsys.readouterr().out.splitlines()) == 2
    (registry / "unpacked" / "sync" / "password").unlink()
    _run(path)
    assert "thin images cannot be pushed" in capsys.readouterr().out.splitlines()[0]


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceUnreachableError, match="No such file"):
        _run(_file(tmp_path, FIFTY), tmp_path / "none.yaml", "--json")
    lists = _document(capsys)["lists"]
    assert [(each["wishes"], each["trouble"] is None) for each in lists] == [(49, True), (None, False)]


def test_a_place_that_is_none() -> None:
    with pytest.raises(InvalidValueError, match="by https alone"):
        _run("http://example.org/list.yaml")


async def test_the_exit_status_of_the_program(tmp_path: Path) -> None:
    bad = _file(tmp_path, "version: 2\nimages: [fedora]\n")
    ended = await run_module("services.converter", "check", bad)
    assert (ended.status, ended.errors) == (1, "converter: 1 problem, see above\n")
