"""Rows and packed attributes of every form, and those that are none."""

import pytest

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.entries import Entry, Row, decode_xattrs, show_path
from services.repository.native.records import Compression, ContentHash, EntryFlag, HashAlgorithm

_ROW = Row(
    rowid=7,
    md5path_1=1,
    md5path_2=2,
    parent_1=3,
    parent_2=4,
    hardlinks=(5 << 32) + 2,
    hash=b"h" * 20,
    size=9,
    mode=0o104755,
    mtime=-5,
    mtimens=999_999_999,
    flags=4 | 2 << 8 | 1 << 11 | 0x8000,
    name=b"f",
    symlink=b"",
    uid=2**32 - 1,
    gid=6,
    xattr=b"\1\1\3\1a.bx",
)


def test_a_row_is_an_entry() -> None:
    entry = Entry.of(_ROW, b"/d/f")
    assert entry.name == b"f"
    assert (entry.is_file, entry.is_directory, entry.is_symlink, entry.is_device) == (True, False, False, False)
    assert entry.is_hidden
    assert (entry.links, entry.group) == (2, 5)
    assert (entry.mtime, entry.mtime_ns) == (-5, 999_999_999)
    assert entry.hash == ContentHash(b"h" * 20, HashAlgorithm.SHAKE128)
    assert entry.compression is Compression.NONE
    assert entry.xattrs == {b"a.b": b"x"}
    assert EntryFlag.FILE in entry.flags


def test_what_old_schemas_do_not_have_is_none() -> None:
    entry = Entry.of(_ROW._replace(mtimens=None, xattr=None, hash=None), b"/d/f")
    assert (entry.mtime_ns, entry.xattrs, entry.hash) == (0, {}, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"symlink": None}, "its column symlink holds NULL"),
        ({"mode": "0755"}, "its column mode holds '0755'"),
        ({"mode": 0o1000000}, "its column mode holds 262144"),
        ({"size": -1}, "its column size holds -1"),
        ({"mtimens": 10**9}, "its column mtimens holds 1000000000"),
        ({"uid": 2**32}, "its column uid holds 4294967296"),
        ({"hash": b"short"}, "its hash has 5 bytes instead of 20"),
        ({"hash": 5}, "its column hash holds 5"),
        ({"flags": 4 | 3 << 8}, "its flags 0x304 name no known hash algorithm or compression"),
        ({"flags": 4 | 2 << 11}, "its flags 0x1004 name no known hash algorithm or compression"),
        ({"xattr": b"\7\1"}, "its extended attributes are of no known version: they begin with 0701"),
    ],
)
def test_a_row_that_the_format_does_not_allow_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(BrokenRepositoryError, match=f"^/d/f: {reason}"):
        Entry.of(_ROW._replace(**change), b"/d/f")


@pytest.mark.parametrize(
    ("blob", "attributes"),
    [
        (None, {}),
        (b"\1\0", {}),
        (b"\1\1\3\0a.b", {b"a.b": b""}),
        (b"\1\2\1\1aA\1\2bBB", {b"a": b"A", b"b": b"BB"}),
        (b"\1\1\xff\xff" + b"k" * 255 + b"v" * 255, {b"k" * 255: b"v" * 255}),
        (b"\2\1\1\x2c\x01a" + b"v" * 300, {b"a": b"v" * 300}),
    ],
)
def test_attributes_are_unpacked(blob: bytes | None, attributes: dict[bytes, bytes]) -> None:
    assert decode_xattrs(blob) == attributes


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "they begin with -"),
        (b"\1", "they begin with 01"),
        (b"\3\1\1\1ab", "they begin with 0301"),
        (b"\1\1", "do not end within their column of 2 bytes"),
        (b"\1\1\1\1a", "do not end within their column of 5 bytes"),
        (b"\2\1\1\1a", "do not end within their column of 5 bytes"),
        (b"\1\1\1\1abc", "are 6 bytes, their column has 7"),
        (b"\1\1\0\1a", "the name of an extended attribute is empty, twice there, or has a NUL: b''"),
        (b"\1\1\1\1\0a", "the name of an extended attribute is empty, twice there, or has a NUL"),
        (b"\1\2\1\1aA\1\1aB", "the name of an extended attribute is empty, twice there, or has a NUL: b'a'"),
    ],
)
def test_attributes_of_another_form_are_refused(blob: bytes, reason: str) -> None:
    with pytest.raises(BrokenRepositoryError, match=reason):
        decode_xattrs(blob)


@pytest.mark.parametrize(
    ("path", "shown"),
    [(b"", "/"), (b"/a b", "/a b"), (b"/\xff\n\x1b", r"/\\xff\n\x1b"), ("/\u65e5".encode(), "/\u65e5")],
)
def test_paths_are_shown_without_control_characters(path: bytes, shown: str) -> None:
    assert show_path(path) == shown
