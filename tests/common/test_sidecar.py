import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidValueError
from services.common.sidecar import LayerSidecar, decode_directory, decode_path, encode_path

HEX = "a" * 64
DOCUMENT: dict[str, Any] = {
    "version": "1",
    "digest": HEX,
    "diff_id": HEX,
    "archive_size": 1,
    "uncompressed_size": 2,
    "tree_size": 3,
    "entries": 4,
}

_names = st.binary(min_size=1, max_size=20).filter(lambda name: name not in (b".", b"..") and not {0, 47} & set(name))
_paths = st.lists(_names, min_size=1, max_size=4).map(b"/".join)


def parse(**fields: object) -> LayerSidecar:
    return LayerSidecar.parse(json.dumps(DOCUMENT | fields).encode(), where="layer x")


@given(_paths)
def test_any_path_survives_as_printable_text(path: bytes) -> None:
    text = encode_path(path)
    assert decode_path(text) == path
    assert text.isascii()
    assert text.isprintable()


@given(st.lists(_paths, max_size=5), st.lists(st.one_of(_paths, st.just(b"")), max_size=5))
def test_a_sidecar_survives(whiteouts: list[bytes], opaque: list[bytes]) -> None:
    sidecar = parse(whiteouts=list(map(encode_path, whiteouts)), opaque=list(map(encode_path, opaque)), notes=["n"])
    again = LayerSidecar.parse(sidecar.encode(), where="layer x")
    assert again == sidecar
    assert list(map(decode_path, again.whiteouts)) == whiteouts
    assert list(map(decode_directory, again.opaque)) == opaque


def test_readable_paths_stay_readable() -> None:
    assert encode_path(b"usr/lib/a b+c,d") == "usr/lib/a b+c,d"
    assert encode_path(b"100%/\xc3\xa9\n\x7f") == "100%25/%C3%A9%0A%7F"


@pytest.mark.parametrize(
    "text", ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "%2e%2e/a", "a/%2E", "a%00b", "%2Fa", "a%2F"]
)
def test_paths_that_are_none(text: str) -> None:
    with pytest.raises(InvalidValueError, match="not a path below a layer's root"):
        decode_path(text)
    if text:
        with pytest.raises(InvalidValueError, match="not a path below a layer's root"):
            decode_directory(text)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"version": "2"}, "version: Input should be '1'"),
        ({"digest": HEX[1:]}, "digest: "),
        ({"diff_id": f"sha256:{HEX}"}, "diff_id: "),
        ({"entries": -1}, "entries: "),
        ({"entries": 1.5}, "entries: "),
        ({"deletions": "none"}, "deletions: "),
        ({"whiteouts": [""]}, r"whiteouts\.0: .*not a path below"),
        ({"whiteouts": ["a", "../b"]}, r"whiteouts\.1: .*not a path below"),
        ({"opaque": ["/a"]}, r"opaque\.0: .*not a path below"),
        ({"notes": ["n"] * 1001}, "notes: "),
    ],
)
def test_refuses(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidValueError, match=f"layer x: not a layer sidecar: {says}"):
        parse(**fields)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"{" * 100_000])
def test_what_is_no_sidecar(content: bytes) -> None:
    with pytest.raises(InvalidValueError, match="layer x: not a layer sidecar: "):
        LayerSidecar.parse(content, where="layer x")


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert parse(added=5).entries == 4


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({}, False),
        ({"whiteouts": ["a"]}, True),
        ({"opaque": ["a"]}, True),
        ({"whiteouts": ["a"], "deletions": "in-tree"}, False),
    ],
)
def test_a_mask_is_needed_where_the_tree_lacks_deletions(fields: dict[str, Any], needed: bool) -> None:  # noqa: FBT001
    assert parse(**fields).needs_mask is needed
