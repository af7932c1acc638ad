"""`converter adopt`."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from services.converter.commands.adopt import adopt
from services.converter.errors import TakeOverError, WishListError
from services.converter.exit_codes import CODES
from tests.support.ducc import DuccImage, DuccTree
from tests.support.image_publisher import ImagePublisher
from tests.support.tars import archive, member

_LAYER = archive(member(b"file", b"content"))
_ONE, _TWO = "quay.io/ns/one:v1", "quay.io/ns/two:v2"


@pytest.fixture
def tree(tmp_path: Path) -> DuccTree:
    tree = DuccTree(tmp_path / "ducc.example.org")
    tree.convert(DuccImage.made(_ONE, [_LAYER]))
    tree.convert(DuccImage.made(_TWO, [_LAYER], created="2025-01-01T00:00:00Z"), podman=False)
    return tree


@pytest.fixture
def publisher() -> Iterator[ImagePublisher]:
    """A publisher in another thread, since a command has a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = ImagePublisher.run()
    try:
        yield asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result()
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _run(tree: DuccTree, *arguments: object) -> None:
    options = ["--repository-root", tree.root, *arguments]
    try:
        adopt.main([str(option) for option in options], prog_name="adopt", standalone_mode=False)
    except click.ClickException as error:
        pytest.fail(error.format_message())


def test_people_are_told_what_there_is(tree: DuccTree, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tree, "--contents")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:6] == [_ONE, "made", "anew", "flat", "1", "1"]
    assert any(line.strip().endswith("all 2 entries belong to 1000:1000, whoever their owners are") for line in lines)
    assert any(line.startswith("podmanStore: 1 images; layers have no short name") for line in lines)
    assert lines[-1] == "2 images, 2 of them to be made anew: 1 of their 1 layers are fetched, the others are kept"


def test_scripts_are_told_which_images_no_list_names(
    tree: DuccTree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\nuser: u\ncvmfs_repo: ducc.example.org\noutput_format: ''\ninput:\n- 'https://quay.io/ns/one:v*'\n"
    )
    _run(tree, "--list", recipe, "--format", "json")
    document: Any = json.loads(capsys.readouterr().out)
    assert [(image["name"], image["verdict"], image["listed"]) for image in document["images"]] == [
        (_ONE, "made anew", True),
        (_TWO, "made anew", False),
    ]
    assert [layer["right"] for layer in document["layers"]] == [False]
    recipe.write_text("input: [")
    with pytest.raises(WishListError, match="has errors"):
        _run(tree, "--list", recipe)


def test_what_the_publisher_cannot_publish_fails_the_command(
    tree: DuccTree, tmp_path: Path, publisher: ImagePublisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.refused[_TWO] = "made up"
    tree.convert(DuccImage.made("quay.io/ns/wished:v1", [_LAYER]))
    (tmp_path / "list.yaml").write_text(
        "version: 2\ndefaults: {repositories: ducc.example.org}\nimages: [quay.io/ns/wished:v1]\n"
    )
    (tmp_path / "token").write_text("a token")
    options = ("--token-file", tmp_path / "token", "--list", tmp_path / "list.yaml")
    with pytest.raises(TakeOverError, match="1 images could not be published; what DUCC made of them stays"):
        _run(tree, "--apply", "--publisher", publisher.url, *options)
    written = capsys.readouterr()
    assert set(written.err.splitlines()) == {f"{_ONE}: published", f"{_TWO}: made up"}
    assert written.out == "1 images published, 1 failed\n"
    assert {body["name"] for body in publisher.asked()} == {_ONE, _TWO}  # what a list names is its rounds'
    assert dict(CODES)[TakeOverError] == 6
    publisher.refused.clear()
    publisher.held = True
    _run(tree, "--apply", "--publisher", publisher.url, *options, "--no-wait", "--format", "json")
    assert json.loads(capsys.readouterr().out)["taken_over"] == {"published": [_ONE], "failed": {}, "waiting": [_TWO]}


def test_without_a_publisher_nobody_can_be_asked(tree: DuccTree) -> None:
    with pytest.raises(click.UsageError, match="--apply needs --publisher"):
        adopt.main(["--repository-root", str(tree.root), "--apply"], standalone_mode=False)
