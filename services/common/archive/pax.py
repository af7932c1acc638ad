"""PAX extended headers: lines of the form `LENGTH KEY=VALUE` (POSIX.1-2017, pax)."""

import re
from typing import Final

from services.common.archive.errors import ArchiveLimitError, MalformedArchiveError
from services.common.archive.policy import ArchivePolicy

__all__ = ["XATTR_PREFIX", "PaxRecords", "parse_records", "pax_number", "pax_time"]

XATTR_PREFIX: Final = b"SCHILY.xattr."
"""Prefix of the keys that hold extended attributes (star's form, which Docker and GNU tar use)."""

_SPARSE_PAIR: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_NUMBER: Final = re.compile(rb"(?:0|[1-9][0-9]{0,18})")
_SIGNED: Final = re.compile(rb"[+-]?[0-9]{1,40}")
"""What Docker takes for a number, as long as 64 bits hold it."""
_BEYOND: Final = 1 << 63
_TIME: Final = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?")
_LENGTH_DIGITS: Final = 10
_MAX_SECONDS: Final = 1 << 62


class PaxRecords:
    """The records of one extended header."""

    __slots__ = ("sparse", "values", "xattrs")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.xattrs: dict[bytes, bytes] = {}
        self.sparse: list[bytes] = []
        """The values of GNU.sparse.offset and GNU.sparse.numbytes, which repeat, alternating."""


def parse_records(content: bytes, policy: ArchivePolicy) -> PaxRecords:
    """Read the records of an extended header.

    Raises
    ------
    MalformedArchiveError
        A record is not of its form, or comes twice.
    ArchiveLimitError
        Extended attributes are too many or too large.
    """
    records = PaxRecords()
    position, end = 0, len(content)
    while position < end:
        space = content.find(b" ", position, position + _LENGTH_DIGITS)
        digits = content[position:space] if space > 0 else b""
        if not digits.isdigit() or digits.startswith(b"0"):
            raise MalformedArchiveError(f"a PAX record has no length: {content[position : position + 40]!r}")
        following = position + int(digits)
        if following > end or following < space + 3 or content[following - 1 : following] != b"\n":
            raise MalformedArchiveError(f"a PAX record's length is wrong: {content[position : position + 40]!r}")
        key, equals, value = content[space + 1 : following - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise MalformedArchiveError(f"a PAX record has no keyword: {content[position : position + 40]!r}")
        _add(records, key, value, policy)
        position = following
    return records


def _add(records: PaxRecords, key: bytes, value: bytes, policy: ArchivePolicy) -> None:
    limits = policy.limits
    if key.startswith(XATTR_PREFIX):
        name = key[len(XATTR_PREFIX) :]
        if name in records.xattrs:
            policy.object_to(
                MalformedArchiveError(f"the extended attribute {name[:100]!r} comes twice in one PAX header")
            )
        if len(records.xattrs) >= limits.xattr_count:
            raise ArchiveLimitError(f"more than {limits.xattr_count} extended attributes (limit xattr_count)")
        if len(name) > limits.xattr_name_length:
            raise ArchiveLimitError(
                f"an attribute's name has more than {limits.xattr_name_length} bytes (limit xattr_name_length)"
            )
        if len(value) > limits.xattr_value_size:
            raise ArchiveLimitError(
                f"the attribute {name!r} has more than {limits.xattr_value_size} bytes (limit xattr_value_size)"
            )
        records.xattrs[name] = value
    elif key in _SPARSE_PAIR:
        if _SPARSE_PAIR[len(records.sparse) % 2] != key:
            raise MalformedArchiveError("a PAX header's sparse offsets and lengths do not alternate")
        records.sparse.append(value)
    else:
        if key in records.values:
            policy.object_to(
                MalformedArchiveError(f"the PAX record {key[:100]!r} comes twice in one header: readers disagree")
            )
        records.values[key] = value


def pax_number(value: bytes, what: str, policy: ArchivePolicy) -> int:
    """Read a decimal number of a record.

    Raises
    ------
    MalformedArchiveError
        It is none, or negative, or absurdly large.
    """
    if not _NUMBER.fullmatch(value):
        error = MalformedArchiveError(f"a PAX record's {what} is not a number: {value[:40]!r}")
        if not _SIGNED.fullmatch(value) or not -_BEYOND <= int(value) < _BEYOND:
            raise error
        policy.object_to(error)
    return int(value)


def pax_time(value: bytes) -> int:
    """Read a time of a record, in nanoseconds since the epoch; smaller fractions are cut off.

    Raises
    ------
    MalformedArchiveError
        It is none, or out of every range.
    """
    match = _TIME.fullmatch(value)
    if match is None or int(match[2]) >= _MAX_SECONDS:
        raise MalformedArchiveError(f"a PAX record's time is not a number of seconds: {value[:40]!r}")
    sign, seconds, fraction = match.groups()
    nanoseconds = int(seconds) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -nanoseconds if sign else nanoseconds
