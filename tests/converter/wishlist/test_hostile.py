"""Whatever a wish list holds, reading it ends with problems that have places, never with an error of another kind."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.converter.wishlist.reading import read_wish_list
from tests.support.wish_lists import DIGEST, FIFTY, SOURCE

_VERSION_2 = f"""\
version: 2
defaults: &d {{repositories: [a.example.org], retention: {{replaced: 3d, gone: forever}}, interval: 5m}}
policies: [{{name: p, images: 'q.io/*', keys: "-----BEGIN PUBLIC KEY-----"}}]
images:
- q.io/n/a@{DIGEST}
- {{image: q.io/n/a, tags: ['v*'], versions: '>=1.2 <3', newest: 3, thin: ['r.io/$(image)'], policies: p}}
"""
_SIGNS = st.text(alphabet="{}[]:,-&*<!|>'\"%@`#? \n\tabv019./$()~\0\ud7ff\U0001f600é", max_size=6)


def _read(content: bytes) -> None:
    reading = read_wish_list(content, SOURCE)
    lines = content.count(b"\n") + 2 + content.count(b"\r")
    for problem in reading.problems:
        assert problem.origin.source == SOURCE
        assert 1 <= problem.origin.line <= lines
        assert problem.origin.column >= 1
        assert problem.text
    assert reading.wish_list is not None or reading.errors
    assert reading.wish_list is None or reading.wish_list.complete == (not reading.errors)
    assert list(reading.problems) == sorted(reading.problems, key=lambda problem: problem.origin)


@settings(max_examples=150)
@given(st.sampled_from([FIFTY[:400], _VERSION_2]), st.data())
def test_lists_with_something_changed(text: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(len(text), begin + 12)))
    _read((text[:begin] + data.draw(_SIGNS) + text[end:]).encode())


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_bytes_of_any_kind(content: bytes) -> None:
    _read(content)
    _read(b"version: 2\nimages:\n- " + content)


@pytest.mark.parametrize("key", ["version", "defaults", "policies", "images", "input", "cvmfs_repo", "user", "x"])
@pytest.mark.parametrize("value", ["", "~", "1", "[[[]]]", "{a: {b: c}}", "[~, 1, {}, []]", "{? : }", "'\\0'"])
@pytest.mark.parametrize("version", ["1", "2"])
def test_values_of_the_wrong_kind(version: str, key: str, value: str) -> None:
    others = {"version": version, "cvmfs_repo": "a.b", "input": "[]"} if version == "1" else {"version": version}
    lines = {**others, key: value}
    _read("".join(f"{name}: {text}\n" for name, text in lines.items()).encode())


def test_a_text_of_a_problem_is_bounded() -> None:
    text, key = "x" * 16_000, "y" * 1000
    content = f"version: 2\nimages: ['{text}', {{image: '{text}', {key}: 1}}, {{image: 'q.io/n/a:{text}'}}]\n"
    reading = read_wish_list(content.encode(), SOURCE)
    assert len(reading.problems) == 3
    assert max(len(problem.text) for problem in reading.problems) < 1000
