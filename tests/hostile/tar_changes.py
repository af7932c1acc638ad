"""Random changes of tar archives: of their bytes, and, with the right checksum, of their fields and records."""

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from tests.support.layers import layers, members_of
from tests.support.tars import END, GNU_MAGIC, archive, gnu_long, member, pax

__all__ = ["SAMPLE", "fields_changed", "in_any_order", "records_made_up", "repaired"]

_BLOCK: Final = 512

SAMPLE: Final = (
    member(b"d/", b"", b"5", mode=0o755),
    pax({b"path": b"d/" + b"p" * 120, b"mtime": b"1.5", b"SCHILY.xattr.user.a": b"1"}) + member(b"f", b"x" * 700),
    gnu_long(b"d/" + b"g" * 120) + member(b"f", b"y", magic=GNU_MAGIC),
    gnu_long(b"t" * 120, b"K") + member(b"d/s", typeflag=b"2", magic=GNU_MAGIC),
    member(b"d/l", typeflag=b"1", link=b"d/f"),
    member(b"d/f", b"z" * 1024),
    member(b"d/c", typeflag=b"3", major=1, minor=3),
    member(b"d/.wh.gone"),
    member(b"o/.wh..wh..opq"),
    pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9000"})
    + member(b"sparse", b"1\n4096\n512\n".ljust(512, b"\0") + b"s" * 512),
)
"""Entries of every kind; the fifth is a hard link to what only the sixth brings."""

_FIELDS: Final = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "typeflag": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "major": (329, 8),
    "prefix": (345, 155),
}
"""Where a header has them, and how long they are."""
_VALUES: Final = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            *(b"../canary/victim", b"/", b"", b"d", b"d/f", b"o", b".wh.d", b"\x80\0\0\0\0\0\0\x05", b"\xff" * 12),
            *(b"00000001000", b"77777777777", b"0", b"1", b"2", b"5", b"S", b"x", b"g", b"L", b"ustar  \0"),
        ]
    ),
)
_KEYS: Final = (
    *(b"path", b"linkpath", b"size", b"uid", b"mtime", b"SCHILY.xattr.user.a", b"SCHILY.xattr.security.capability"),
    *(b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.size", b"GNU.sparse.realsize", b"GNU.sparse.map"),
    *(b"GNU.sparse.name", b"GNU.sparse.numblocks", b"GNU.sparse.offset", b"GNU.sparse.numbytes"),
)


def _with_right_checksum(block: bytes) -> bytes:
    return block[:148] + b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 0x20) + block[156:]


def _is_header(block: bytes) -> bool:
    return len(block) == _BLOCK and block[257:262] == b"ustar"


def repaired(content: bytes) -> bytes:
    """Return an archive with the right checksum in all of its headers, so that a reader looks at what else is wrong."""
    blocks = [content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
    return b"".join(_with_right_checksum(block) if _is_header(block) else block for block in blocks)


def fields_changed() -> st.SearchStrategy[bytes]:
    """Draw archives of the sample with other values in fields of their headers."""
    change = st.tuples(st.integers(0, 100), st.sampled_from(sorted(_FIELDS)), _VALUES)
    return st.lists(change, min_size=1, max_size=3).map(_with_fields)


def _with_fields(changes: Sequence[tuple[int, str, bytes]]) -> bytes:
    content = archive(*SAMPLE)
    blocks = [content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
    headers = [number for number, block in enumerate(blocks) if _is_header(block)]
    for number, name, value in changes:
        index = headers[number % len(headers)]
        start, width = _FIELDS[name]
        block = blocks[index]
        blocks[index] = block[:start] + value[:width].ljust(width, b"\0") + block[start + width :]
    return repaired(b"".join(blocks))


def records_made_up() -> st.SearchStrategy[bytes]:
    """Draw archives with any extended header before an entry of any type."""
    value = st.one_of(
        st.binary(max_size=20), st.integers(-5, 1 << 70).map(b"%d".__mod__), st.sampled_from([b"0,1", b"d/f"])
    )
    return st.builds(
        lambda records, header, typeflag: archive(
            member(b"d/f", b"1"), pax(records, header), member(b"e", b"data", typeflag, link=b"d/f")
        ),
        st.lists(st.tuples(st.sampled_from(_KEYS), value), max_size=6),
        st.sampled_from([b"x", b"g"]),
        st.sampled_from([b"0", b"1", b"2", b"5", b"S"]),
    )


def in_any_order() -> st.SearchStrategy[bytes]:
    """Draw archives of two layers, their entries in any order."""
    entries = st.builds(
        lambda first, second: members_of(first) + members_of(second), layers(deletions=True), layers(deletions=True)
    )
    return entries.flatmap(st.permutations).map(lambda parts: b"".join(parts) + END)
