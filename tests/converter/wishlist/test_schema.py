"""The JSON Schema, by which editors check wish lists, and what the converter says of the same lists.

The schema knows the form of values and not what they mean. So it may let something pass that `converter check` refuses,
but nothing that it refuses may be right.
"""

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from services.converter.wishlist.grammar import json_schema
from tests.support.wish_lists import problems_of

_DOCUMENT = Path(__file__).parents[3] / "docs" / "wish-list.md"
_EXAMPLES = [
    example for example in re.findall(r"```yaml\n(.*?)```", _DOCUMENT.read_text(), re.DOTALL) if "version: 2" in example
]
_HEAD = "version: 2\ndefaults: {repositories: a.example.org}\nimages:\n- "
_VALIDATOR = Draft202012Validator(json_schema())


def _refused_by_schema(text: str) -> bool:
    return any(_VALIDATOR.iter_errors(yaml.safe_load(text)))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "text",
    [
        *_EXAMPLES,
        *(
            f"{_HEAD}{entry}\n"
            for entry in (
                "quay.io/ns/tool:v1",
                "{image: q.io/n/a, tags: ['1.*'], exclude: '*-rc*', versions: '>=1.2', newest: 3, newest_by: created}",
                "{image: q.io/n/a, max_age: 1.5h, repositories: [b.example.org], interval: 5m}",
                "{image: 'q.io/n/a:1', thin: [{push: 'r.io/t/$(image)', layout: ducc}, 'r.io/u:$(tag)']}",
                "{image: 'q.io/n/a:1', thin: [], retention: {replaced: 2w, gone: forever}, priority: -3, policies: []}",
                "{image: 'q.io/n/a:1', outputs: flat}",
                "{image: 'q.io/n/a:1', outputs: [flat, podman]}",
                "{image: 'q.io/n/a:1', outputs: []}",
                "{image: 'q.io/n/a:1', outputs: {flat: , podman: {store: atlas}}}",
                "{image: 'q.io/n/a:1', outputs: {flat: {others_read: true}}}",
                # What looks like a number to an editor is a text here.
                "{image: q.io/n/a, tags: 24.04, exclude: [1.10, 2]}",
                "{image: q.io/n/a, versions: 1.2}",
            )
        ),
        "version: 2\nimages: []\npolicies: []\n",
    ],
)
def test_what_is_right_is_right_to_both(text: str) -> None:
    assert problems_of(text) == []
    assert not _refused_by_schema(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{_HEAD}{entry}\n"
            for entry in (
                "{imgae: 'q.io/n/a:1'}",
                "{image: 'q.io/n/a:1', thinn: x}",
                "{image: 'q.io/n/a:1', retention: {dropt: 1d}}",
                "{image: 'q.io/n/a:1', retention: {gone: 0}}",
                "{image: 'q.io/n/a:1', retention: {gone: }}",
                "{image: 'q.io/n/a:1', retention: }",
                "{image: 'q.io/n/a:1', thin: [{to: x}]}",
                "{image: 'q.io/n/a:1', thin: {push: 'r.io/x:$(tag)'}}",
                "{image: 'q.io/n/a:1', thin: [{push: 'r.io/x:$(tag)', layout: other}]}",
                "{image: 'q.io/n/a:1', outputs: squash}",
                "{image: 'q.io/n/a:1', outputs: [flat, squash]}",
                "{image: 'q.io/n/a:1', outputs: {squash: }}",
                "{image: 'q.io/n/a:1', outputs: {flat: {mode: 1}}}",
                "{image: 'q.io/n/a:1', outputs: {flat: [others_read]}}",
                "{image: q.io/n/a, newest: 0}",
                "{image: q.io/n/a, newest: few}",
                "{image: q.io/n/a, newest: 1, newest_by: age}",
                "{image: q.io/n/a, tags: []}",
                "{image: q.io/n/a, max_age: 3 weeks}",
                "{image: 'q.io/n/a:1', repositories: []}",
                "{image: 'q.io/n/a:1', priority: 9999}",
                "{image: 'q.io/n/a:1', may_fail: maybe}",
                "{tags: x}",
                "[a, b]",
            )
        ),
        "version: 3\nimages: []\n",
        "images: []\n",
        "version: 2\nimags: []\n",
        "version: 2\nimages: a\n",
        "version: 2\ndefaults: {image: x}\nimages: []\n",
        "version: 2\nimages: []\npolicies: [{name: a, keys: []}]\n",
        "version: 2\nimages: []\npolicies: [{keys: [a]}]\n",
    ],
)
def test_what_is_of_the_wrong_form_is_wrong_to_both(text: str) -> None:
    assert problems_of(text)
    assert _refused_by_schema(text)
