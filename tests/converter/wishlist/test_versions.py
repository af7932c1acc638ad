"""Versions and ranges; the expectations of ranges are those of npm's documentation and its `semver` program."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidValueError
from services.converter.wishlist.versions import Version, VersionRange


def _version(text: str) -> Version:
    version = Version.parse(text)
    assert version is not None
    return version


@pytest.mark.parametrize(
    ("text", "numbers", "pre"),
    [
        ("1.2.3", (1, 2, 3), ()),
        ("v1.2", (1, 2, 0), ()),
        ("24.04", (24, 4, 0), ()),
        ("7", (7, 0, 0), ()),
        ("3.11.4-slim", (3, 11, 4), ("slim",)),
        ("1.0.0-rc.1", (1, 0, 0), ("rc", "1")),
    ],
)
def test_tags_that_are_versions(text: str, numbers: tuple[int, ...], pre: tuple[str, ...]) -> None:
    version = _version(text)
    assert (version.numbers, version.pre) == (numbers, pre)


@pytest.mark.parametrize("text", ["latest", "1.2.3.4", "1.2.x", "1.2_3", "-1", "", "1.", "x" * 200, "1" * 20])
def test_tags_that_are_none(text: str) -> None:
    assert Version.parse(text) is None


def test_order_is_that_of_the_standard() -> None:
    ordered = [
        *("1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"),
        *("1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"),
    ]
    assert [pair for pair in pairwise(ordered) if not _version(pair[0]) < _version(pair[1])] == []


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("*", ["0.0.0", "1.2.3"], ["1.2.3-rc.1"]),
        ("1.2.3", ["1.2.3", "v1.2.3"], ["1.2.4", "1.2.3-rc.1"]),
        ("1.2", ["1.2.0", "1.2.9"], ["1.3.0", "1.3.0-rc.1", "1.1.9"]),
        ("1.2.x", ["1.2.0", "1.2.9"], ["1.3.0", "1.1.9"]),
        ("1.X", ["1.0.0", "1.99.9"], ["2.0.0", "0.9.0"]),
        (">=1.2 <3", ["1.2.0", "2.9.9"], ["1.1.9", "3.0.0", "3.0.0-rc.1", "2.0.0-rc.1"]),
        (">=1.2, <3", ["1.2.0", "2.9.9"], ["3.0.0"]),
        (">= 1.2   < 3", ["2.0.0"], ["3.0.0"]),
        (">1.2", ["1.3.0"], ["1.2.9"]),
        (">1.2.3", ["1.2.4"], ["1.2.3"]),
        ("<=1.2", ["1.2.9"], ["1.3.0"]),
        ("<=1.2.3", ["1.2.3"], ["1.2.4"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["2.0.0", "1.2.2"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("^0.0", ["0.0.0", "0.0.9"], ["0.1.0"]),
        ("^0", ["0.0.0", "0.9.9"], ["1.0.0"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0"]),
        ("~1.2", ["1.2.0"], ["1.3.0"]),
        ("~1", ["1.0.0", "1.9.9"], ["2.0.0"]),
        ("1.2.3 - 2.3.4", ["1.2.3", "2.3.4"], ["2.3.5", "1.2.2"]),
        ("1.2 - 2.3", ["1.2.0", "2.3.9"], ["2.4.0"]),
        ("1.x || >=3 <4", ["1.5.0", "3.1.0"], ["2.0.0", "4.0.0"]),
        (">=1.2.3-rc.1", ["1.2.3-rc.1", "1.2.3-rc.2", "1.2.3", "2.0.0"], ["1.2.3-beta", "1.2.4-rc.1"]),
        ("^1.2.3-beta.2", ["1.2.3-beta.4", "1.9.0"], ["1.2.3-beta.1", "1.2.4-beta.2", "2.0.0"]),
        (">*", [], ["0.0.0", "9.9.9"]),
    ],
)
def test_ranges(text: str, inside: list[str], outside: list[str]) -> None:
    wanted = VersionRange(text)
    assert [version for version in inside if not wanted.contains(_version(version))] == []
    assert [version for version in outside if wanted.contains(_version(version))] == []


@pytest.mark.parametrize("text", ["", "||", "latest", "1.2.3.4", ">=", "1.2 ||", "=>1", "1.2|2", "x" * 300, ">=1.2<<3"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidValueError, match="range of versions"):
        VersionRange(text)


_NUMBERS = st.tuples(*[st.integers(0, 12)] * 3)


@settings(max_examples=50)
@given(_NUMBERS, _NUMBERS)
def test_comparisons_are_those_of_the_numbers(low: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    text, version = ".".join(map(str, low)), _version(".".join(map(str, other)))
    assert VersionRange(f">={text}").contains(version) == (other >= low)
    assert VersionRange(f">{text}").contains(version) == (other > low)
    assert VersionRange(f"<={text}").contains(version) == (other <= low)
    assert VersionRange(f"<{text}").contains(version) == (other < low)
    assert VersionRange(text).contains(version) == (other == low)
    assert VersionRange(f"~{text}").contains(version) == (other >= low and other[:2] == low[:2])
