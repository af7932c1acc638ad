"""The documentation of wish lists."""

import re
from pathlib import Path

import pytest

from services.converter.wishlist.grammar import ImageEntry
from services.converter.wishlist.reading import read_wish_list

_DOCUMENT = (Path(__file__).parents[2] / "docs" / "wish-list.md").read_text()
_EXAMPLES = re.findall(r"```yaml\n(.*?)```", _DOCUMENT, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(_EXAMPLES) == 6


@pytest.mark.parametrize("example", _EXAMPLES)
def test_examples_have_no_problems(example: str) -> None:
    reading = read_wish_list(example.encode(), "docs/wish-list.md")
    assert reading.problems == ()
    assert reading.wish_list is not None
    assert reading.wish_list.wishes


def test_every_key_of_an_image_is_documented() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|", _DOCUMENT, re.MULTILINE)
    assert sorted(rows) == sorted(ImageEntry.model_fields)
