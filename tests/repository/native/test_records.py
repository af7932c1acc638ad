"""The definitions against values of the format's description, which come from real repositories."""

import pytest

from services.common.errors import InvalidValueError
from services.repository.native.records import (
    COUNTERS,
    ROOT_PATH_HASH,
    ContentHash,
    HashAlgorithm,
    ObjectKind,
    path_hash,
)

_EMPTY = "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        (b"", (338333539836370388, 9098107892288553193)),
        (b"/foo", (5745132282796244766, -5819618580357280866)),
        (b"/foo/bar", (-2822516800166431715, 9048809318629099454)),
    ],
)
def test_paths_are_named_by_two_signed_numbers(path: bytes, columns: tuple[int, int]) -> None:
    assert path_hash(path) == columns


def test_an_object_is_named_by_its_stored_bytes() -> None:
    name = ContentHash.of(b"\x78\x9c\x03\x00\x00\x00\x00\x01")
    assert str(name) == _EMPTY
    assert name.path(ObjectKind.FILE) == f"data/e8/{_EMPTY[2:]}"
    assert name.path(ObjectKind.CATALOG) == f"data/e8/{_EMPTY[2:]}C"


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        (HashAlgorithm.SHA1, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        (HashAlgorithm.RMD160, "9c1185a5c5e9fc54612808977ee8f548b2258d31-rmd160"),
        (HashAlgorithm.SHAKE128, "7f9c2ba4e88f827d616045507605853ed73b8093-shake128"),
    ],
)
def test_every_algorithm_has_its_suffix(algorithm: HashAlgorithm, text: str) -> None:
    name = ContentHash.of(b"", algorithm)
    assert str(name) == text
    assert ContentHash.parse(text) == name


@pytest.mark.parametrize("text", ["", _EMPTY[1:], _EMPTY.upper(), _EMPTY + "C", _EMPTY + "-md5", _EMPTY + "\n"])
def test_anything_else_is_no_content_hash(text: str) -> None:
    with pytest.raises(InvalidValueError):
        ContentHash.parse(text)


def test_the_null_hash_is_known() -> None:
    assert ContentHash.null().is_null
    assert str(ContentHash.null()) == 40 * "0"
    assert not ContentHash.parse(_EMPTY).is_null


def test_the_constants_are_those_of_the_format() -> None:
    assert ROOT_PATH_HASH == "d41d8cd98f00b204e9800998ecf8427e"
    assert len(COUNTERS) == len(set(COUNTERS)) == 24
