"""The extended headers before an entry: PAX records, and GNU tar's long names."""

from typing import Final

from services.common.archive.entry import Entry
from services.common.archive.errors import MalformedArchiveError
from services.common.archive.pax import PaxRecords, parse_records, pax_number, pax_time
from services.common.archive.policy import ArchivePolicy

__all__ = ["PRELUDES", "Prelude"]

PRELUDES: Final = (b"x", b"L", b"K")
"""Types of extended headers that speak of the next entry."""

_OCTAL_LIMIT: Final = 0o77777777777
_SIZE_STAND_INS: Final = (0, _OCTAL_LIMIT)
"""What writers put into the ustar size where only a PAX record can hold it (Go and GNU tar; libarchive)."""


class Prelude:
    """What extended headers say about the next entry."""

    __slots__ = ("long_link", "long_name", "pax")

    def __init__(self) -> None:
        self.pax: PaxRecords | None = None
        self.long_name: bytes | None = None
        self.long_link: bytes | None = None

    def add(self, typeflag: bytes, content: bytes, policy: ArchivePolicy) -> None:
        """Take one more header, in place of an earlier one of its type.

        Raises
        ------
        MalformedArchiveError, ArchiveLimitError
            It breaks its form, or is a second one where that is not taken.
        """
        if typeflag == b"x":
            if self.pax is not None:
                _object(policy, "two extended headers before one entry: readers disagree which counts")
            self.pax = parse_records(content, policy)
            return
        name = content.split(b"\0", 1)[0]
        if typeflag == b"L":
            if self.long_name is not None:
                _object(policy, "two GNU long names before one entry: readers disagree which counts")
            self.long_name = name
        else:
            if self.long_link is not None:
                _object(policy, "two GNU long link names before one entry: readers disagree which counts")
            self.long_link = name

    def apply(self, entry: Entry, policy: ArchivePolicy) -> None:
        """Put what the headers say in the place of the entry's own.

        Raises
        ------
        MalformedArchiveError
            A number is none, or two headers say different things where that is not taken.
        """
        values = self.pax.values if self.pax is not None else {}
        if self.pax is not None:
            entry.xattrs = self.pax.xattrs
            _apply_records(entry, values, policy)
        if self.long_name is not None:
            if values.get(b"path", self.long_name) != self.long_name:
                _object(policy, "a GNU long name and another PAX path: readers disagree which counts")
            entry.name = _not_empty(self.long_name, entry.name, policy)
        if self.long_link is not None:
            if values.get(b"linkpath", self.long_link) != self.long_link:
                _object(policy, "a GNU long link name and another PAX linkpath: readers disagree which counts")
            entry.link = _not_empty(self.long_link, entry.link, policy)


def _apply_records(entry: Entry, values: dict[bytes, bytes], policy: ArchivePolicy) -> None:
    entry.name = values.get(b"path") or entry.name
    entry.link = values.get(b"linkpath") or entry.link
    if value := values.get(b"mtime"):
        entry.mtime = pax_time(value)
    if value := values.get(b"uid"):
        entry.uid = pax_number(value, "owner", policy)
    if value := values.get(b"gid"):
        entry.gid = pax_number(value, "group", policy)
    if value := values.get(b"size"):
        _apply_size(entry, pax_number(value, "size", policy), policy)


def _apply_size(entry: Entry, size: int, policy: ArchivePolicy) -> None:
    """Take a PAX size for certain only where the header cannot hold it or says the same (CVE-2025-62518)."""
    if entry.size != size and (size <= _OCTAL_LIMIT or entry.size not in _SIZE_STAND_INS):
        _object(policy, f"its PAX size is {size}, its header's size {entry.size}: readers disagree")
    entry.size = entry.stored = size


def _not_empty(name: bytes, former: bytes, policy: ArchivePolicy) -> bytes:
    if not name:
        _object(policy, "an empty GNU long name: readers disagree whether it counts")
    return name or former


def _object(policy: ArchivePolicy, text: str) -> None:
    policy.object_to(MalformedArchiveError(text))
