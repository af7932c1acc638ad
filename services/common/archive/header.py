"""The 512-byte tar header: ustar, GNU, star and the seventh edition's (GNU tar manual, POSIX.1-2017 pax)."""

import struct
import zlib
from typing import Final

from services.common.archive.errors import MalformedArchiveError
from services.common.archive.policy import ArchivePolicy
from services.common.archive.stream import BLOCK

__all__ = ["GNU_MAGIC", "Header", "number", "parse_header"]

GNU_MAGIC: Final = b"ustar  \0"
"""Magic and version of GNU tar's format."""

_USTAR_MAGIC: Final = b"ustar\0"
_STAR_TRAILER: Final = b"tar\0"
_STAR_PREFIX: Final = 131

_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s64s8s8s155s12s")
_CHECKSUM: Final = slice(148, 156)
_BASE256: Final = 0x80
_NEGATIVE: Final = 0x40


class Header:
    """The fields of one header that matter in a layer; numbers are not checked against each other yet."""

    __slots__ = ("gid", "link", "magic", "major", "minor", "mode", "mtime", "name", "size", "typeflag", "uid")

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    typeflag: bytes
    link: bytes
    magic: bytes
    major: bytes
    minor: bytes


def number(field: bytes, what: str, policy: ArchivePolicy) -> int:
    """Read a numeric field: octal digits, or a base-256 number where the first bit is set (GNU, star).

    Raises
    ------
    MalformedArchiveError
        The field is neither.
    """
    digits = field.rstrip(b" \0").lstrip(b" ")
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            pass
    elif not digits:
        return 0
    elif field[0] & _BASE256:
        return _base256(field)
    error = MalformedArchiveError(f"a header's {what} is not a number: {field!r}")
    # Docker reads past zero bytes before the digits, and not on behind those after them.
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not _is_octal(digits):
        raise error
    policy.object_to(error)
    return int(digits, 8)


def _is_octal(digits: bytes) -> bool:
    return digits.isdigit() and b"8" not in digits and b"9" not in digits


def _base256(field: bytes) -> int:
    value = int.from_bytes(field, "big")
    bits = len(field) * 8
    if field[0] & _NEGATIVE:
        return value - (1 << bits)
    return value - (1 << (bits - 1))


def parse_header(block: bytes, policy: ArchivePolicy) -> Header:
    """Read a header block that is not all zeros.

    Raises
    ------
    MalformedArchiveError
        The checksum is wrong, a number is none, or the prefix means different names to different readers.
    """
    name, mode, uid, gid, size, mtime, checksum, typeflag, link, magic, _names, major, minor, prefix, trailer = (
        _FIELDS.unpack(block)
    )
    _check_sum(block, number(checksum, "checksum", policy))
    header = Header()
    name = name.split(b"\0", 1)[0]
    if magic[:6] == _USTAR_MAGIC:
        if prefix[0]:
            if trailer[8:] == _STAR_TRAILER:
                prefix = prefix[:_STAR_PREFIX]
            name = prefix.split(b"\0", 1)[0] + b"/" + name
    elif magic == GNU_MAGIC and prefix[0] and typeflag != b"S" and not _holds_times(prefix):
        # Some early Go writers put a prefix where GNU's header has two times.
        policy.object_to(
            MalformedArchiveError(
                f"the entry {name[:100]!r} has a GNU header with a ustar prefix: readers disagree about its name"
            )
        )
        name = prefix.split(b"\0", 1)[0] + b"/" + name
    header.name = name
    header.mode = number(mode, "mode", policy)
    header.uid = number(uid, "owner", policy)
    header.gid = number(gid, "group", policy)
    header.size = number(size, "size", policy)
    header.mtime = number(mtime, "time", policy)
    header.typeflag = typeflag
    header.link = link.split(b"\0", 1)[0]
    header.magic = magic
    header.major = major
    header.minor = minor
    return header


def _check_sum(block: bytes, expected: int) -> None:
    # The sum of all bytes with the checksum's own eight taken as spaces. adler32's low half is one plus that sum modulo
    # 65,521 and thirty times as fast; it is the sum itself where half of the block is zeros, as in nearly every header.
    total = (zlib.adler32(block) & 0xFFFF) - 1 if block.count(0) >= BLOCK // 2 else sum(block)
    own = sum(block[_CHECKSUM])
    if total - own + 8 * 0x20 == expected:
        return
    # Some historic writers added signed bytes up.
    signed = sum(byte - 256 if byte & 0x80 else byte for byte in block) - sum(
        byte - 256 if byte & 0x80 else byte for byte in block[_CHECKSUM]
    )
    if signed + 8 * 0x20 != expected:
        raise MalformedArchiveError(f"a header's checksum is {expected}, its bytes add up to {total - own + 8 * 0x20}")


def _holds_times(prefix: bytes) -> bool:
    """Tell whether two times are where ustar has a prefix."""
    for field in (prefix[:12], prefix[12:24]):
        digits = field.rstrip(b" \0").lstrip(b" ")
        if digits and not field[0] & _BASE256 and not _is_octal(digits):
            return False
    return True
