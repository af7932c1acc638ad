"""Tar archives made byte by byte, so that they can be wrong in every way; shares no code with what reads them."""

import struct
from collections.abc import Iterable
from typing import Final

__all__ = ["END", "GNU_MAGIC", "archive", "blocks", "gnu_long", "header", "member", "octal", "pax", "pax_record"]

_BLOCK: Final = 512
END: Final = bytes(2 * _BLOCK)
"""The two zero blocks at the end of an archive."""
USTAR_MAGIC: Final = b"ustar\x0000"
GNU_MAGIC: Final = b"ustar  \0"


def octal(value: int, width: int) -> bytes:
    """Return a number as a header's field has it."""
    return b"%0*o\0" % (width - 1, value)


def blocks(content: bytes) -> bytes:
    """Fill up to whole blocks."""
    return content + bytes(-len(content) % _BLOCK)


def header(  # noqa: PLR0913 - the fields of a header
    name: bytes,
    typeflag: bytes = b"0",
    *,
    mode: bytes | int = 0o644,
    uid: bytes | int = 0,
    gid: bytes | int = 0,
    size: bytes | int = 0,
    mtime: bytes | int = 0,
    link: bytes = b"",
    magic: bytes = USTAR_MAGIC,
    major: bytes | int = 0,
    minor: bytes | int = 0,
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """Return a header block; a field given as bytes is used as it is."""

    def field(value: bytes | int, width: int) -> bytes:
        return value if isinstance(value, bytes) else octal(value, width)

    parts = [
        struct.pack("100s8s8s8s", name, field(mode, 8), field(uid, 8), field(gid, 8)),
        struct.pack("12s12s", field(size, 12), field(mtime, 12)),
        struct.pack("c100s8s64s", typeflag, link, magic, b""),
        struct.pack("8s8s167s", field(major, 8), field(minor, 8), prefix),
    ]
    before, after = b"".join(parts[:2]), b"".join(parts[2:])
    if checksum is None:
        checksum = b"%06o\0 " % (sum(before) + sum(after) + 8 * 0x20)
    return before + checksum.ljust(8, b"\0") + after


def member(name: bytes, content: bytes = b"", typeflag: bytes = b"0", **fields: bytes | int) -> bytes:
    """Return an entry with its data."""
    fields.setdefault("size", len(content))
    return header(name, typeflag, **fields) + blocks(content)  # type: ignore[arg-type]


def pax_record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record with the right length."""
    length = len(key) + len(value) + 3
    while True:
        record = b"%d %s=%s\n" % (length, key, value)
        if len(record) == length:
            return record
        length = len(record)


def pax(records: dict[bytes, bytes] | Iterable[tuple[bytes, bytes]] | bytes, typeflag: bytes = b"x") -> bytes:
    """Return an extended header; records given as bytes are used as they are."""
    if not isinstance(records, bytes):
        pairs = records.items() if isinstance(records, dict) else records
        records = b"".join(pax_record(key, value) for key, value in pairs)
    return member(b"pax", records, typeflag)


def gnu_long(name: bytes, typeflag: bytes = b"L") -> bytes:
    """Return GNU tar's entry of a long name, or with `K` of a long link target."""
    return member(b"././@LongLink", name + b"\0", typeflag, magic=GNU_MAGIC)


def archive(*parts: bytes) -> bytes:
    """Return a whole archive."""
    return b"".join(parts) + END
