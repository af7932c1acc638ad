"""Globs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidValueError
from services.converter.wishlist.globs import check_glob, glob_matches, path_glob_matches


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("v1.*", "v1.2", True),
        ("v1.*", "v1x2", False),
        ("v1.*", "xv1.2", False),
        ("*-rc*", "1.0-rc1", True),
        ("v?", "v1", True),
        ("v?", "v12", False),
        ("v[0-9]", "v5", True),
        ("v[!0-9]", "v5", False),
        ("a+b(c)|d", "a+b(c)|d", True),
        ("quay.io/ns/*", "quay.io/ns/deep/tool:v1", True),
        ("V1", "v1", False),
    ],
)
def test_patterns(pattern: str, text: str, matches: bool) -> None:  # noqa: FBT001 - a row of the table
    assert glob_matches(check_glob(pattern), text) is matches


def test_patterns_of_paths_go_by_components() -> None:
    assert path_glob_matches("quay.io/*/tool:*", "quay.io/ns/tool:v1")
    assert not path_glob_matches("quay.io/*", "quay.io/ns/tool:v1")


@pytest.mark.parametrize("pattern", ["", "x" * 257, "v[1", "[]", "[!]", "a[b]c["])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidValueError, match="pattern"):
        check_glob(pattern)


@settings(max_examples=50)
@given(st.text(alphabet="ab*", min_size=1, max_size=12), st.text(alphabet="ab", max_size=12))
def test_stars_match_as_the_definition_has_it(pattern: str, text: str) -> None:
    def matches(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return matches(pattern[1:], text) or (bool(text) and matches(pattern, text[1:]))
        return text[:1] == pattern[0] and matches(pattern[1:], text[1:])

    assert glob_matches(pattern, text) == matches(pattern, text)


def test_a_pattern_made_to_take_long_does_not() -> None:
    # Were each star tried at every place, this would not end in this world's time.
    assert not glob_matches("*a" * 128, "a" * 127)
