"""Write tar entries: ustar headers, with PAX records only for what they cannot hold (POSIX.1-2017, pax)."""

import zlib
from collections.abc import Mapping
from typing import Final, Protocol

from services.common.archive.errors import ArchiveWriteError, UnsupportedTreeError
from services.common.archive.notes import show
from services.common.archive.pax import XATTR_PREFIX
from services.common.archive.stream import BLOCK

__all__ = ["Sink", "TarWriter"]

_FLUSH: Final = 512 << 10
"""Bytes that are collected before they are handed on."""

_ZEROS: Final = bytes(1 << 20)
_MAX_RECORDS: Final = 1 << 20
"""Size of PAX records that Go's archive/tar, and so Docker, reads at most."""
_END: Final = bytes(2 * BLOCK)
_MAX_OCTAL_7: Final = 0o7777777
_MAX_OCTAL_11: Final = 0o77777777777
_MAGIC: Final = b"ustar\x0000"
_NAME: Final = 100
_NO_SUM: Final = 8 * 0x20
_NANO: Final = 1_000_000_000


class Sink(Protocol):
    """Where a stream goes: a blocking writer that takes all it is given and may keep it, since it never changes."""

    def write(self, data: bytes, /) -> object:
        """Take the data."""


class TarWriter:
    """Tar entries in a sink, in large pieces.

    Parameters
    ----------
    sink
        Gets the stream.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._parts: list[bytes] = []
        self._pending = 0
        self._written = 0

    @property
    def position(self) -> int:
        """Size of the stream so far, in bytes."""
        return self._written + self._pending

    def entry(
        self,
        name: bytes,
        typeflag: bytes,
        *,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        link: bytes = b"",
        major: int = 0,
        minor: int = 0,
        xattrs: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Write an entry's headers; its data follow by `small` or by `data` and `pad`.

        Parameters
        ----------
        mtime
            Nanoseconds since the epoch.
        """
        records = b""
        seconds, fraction = divmod(mtime, _NANO)
        if fraction or not 0 <= seconds <= _MAX_OCTAL_11:
            records = _record(b"mtime", _decimal_time(mtime))
            seconds = seconds if 0 <= seconds <= _MAX_OCTAL_11 else 0
        if len(name) > _NAME or len(link) > _NAME:
            records += _long_names(name, link)
        if size > _MAX_OCTAL_11 or uid > _MAX_OCTAL_7 or gid > _MAX_OCTAL_7:
            records += _large_numbers(size, uid, gid)
        if xattrs:
            records += b"".join([_record(XATTR_PREFIX + key, xattrs[key]) for key in sorted(xattrs)])
        if records:
            if len(records) > _MAX_RECORDS:
                raise UnsupportedTreeError(
                    f"{show(name)} has a path, a link's target and extended attributes of {len(records)} bytes; "
                    f"readers of layers take no more than {_MAX_RECORDS}"
                )
            self._put(_extended_header(len(records)))
            self._put(records + _ZEROS[: -len(records) % BLOCK])
        self._put(
            _header(
                name[:_NAME],
                typeflag,
                mode=mode,
                uid=uid if uid <= _MAX_OCTAL_7 else 0,
                gid=gid if gid <= _MAX_OCTAL_7 else 0,
                size=size if size <= _MAX_OCTAL_11 else 0,
                mtime=seconds,
                link=link[:_NAME],
                major=major,
                minor=minor,
            )
        )
        if self._pending >= _FLUSH:
            self.flush()

    def small(self, content: bytes) -> None:
        """Write all of an entry's data, with the padding."""
        self._put(content)
        if rest := -len(content) % BLOCK:
            self._put(_ZEROS[:rest])

    def data(self, content: bytes) -> None:
        """Write a large piece of an entry's data."""
        self.flush()
        self._write(content)

    def zeros(self, count: int) -> None:
        """Write zeros as an entry's data."""
        while count:
            piece = min(count, len(_ZEROS))
            self.data(_ZEROS if piece == len(_ZEROS) else bytes(piece))
            count -= piece

    def pad(self, size: int) -> None:
        """Fill up to a whole block after so many bytes of data."""
        if rest := -size % BLOCK:
            self._put(_ZEROS[:rest])

    def close(self) -> None:
        """Write the end of the archive."""
        self._put(_END)
        self.flush()

    def flush(self) -> None:
        """Hand on what has been collected."""
        if self._parts:
            content = b"".join(self._parts)
            self._parts.clear()
            self._pending = 0
            self._write(content)

    def _write(self, content: bytes) -> None:
        try:
            self._sink.write(content)
        except OSError as error:
            raise ArchiveWriteError(f"the archive cannot be written on after {self._written} bytes: {error}") from error
        self._written += len(content)

    def _put(self, content: bytes) -> None:
        self._parts.append(content)
        self._pending += len(content)


def _header(
    name: bytes,
    typeflag: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    major: int,
    minor: int,
) -> bytes:
    head = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(_NAME, b"\0"), mode, uid, gid, size, mtime)
    tail = b"%c%s%s%s" % (typeflag, link.ljust(_NAME, b"\0"), _MAGIC, _ZEROS[:64])
    tail += b"%07o\0%07o\0" % (major, minor)
    # adler32's low half is one plus the sum of the bytes modulo 65,521, thirty times as fast as sum(). Names of high
    # bytes alone could reach the modulus.
    both = head + tail
    total = (zlib.adler32(both) & 0xFFFF) - 1 if both.count(0) >= len(both) // 2 else sum(both)
    return b"%s%06o\0 %s%s" % (head, total + _NO_SUM, tail, _ZEROS[:167])


_extended: dict[int, bytes] = {}


def _extended_header(size: int) -> bytes:
    """Return the header of PAX records of a size; nothing else in it differs, so most come from memory."""
    header = _extended.get(size)
    if header is None:
        header = _header(b"PaxHeader", b"x", mode=0o644, uid=0, gid=0, size=size, mtime=0, link=b"", major=0, minor=0)
        if size < BLOCK:
            _extended[size] = header
    return header


def _long_names(name: bytes, link: bytes) -> bytes:
    records = [_record(key, value) for key, value in ((b"path", name), (b"linkpath", link)) if len(value) > _NAME]
    if not (name + link).isascii() and not _is_utf8(name + b"/" + link):
        # What the records hold is not UTF-8, as they would promise without this one.
        records.insert(0, _record(b"hdrcharset", b"BINARY"))
    return b"".join(records)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _large_numbers(size: int, uid: int, gid: int) -> bytes:
    numbers = ((b"size", size, _MAX_OCTAL_11), (b"uid", uid, _MAX_OCTAL_7), (b"gid", gid, _MAX_OCTAL_7))
    return b"".join([_record(key, b"%d" % value) for key, value, largest in numbers if value > largest])


def _record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record, whose length counts its own digits."""
    length = len(key) + len(value) + 3
    digits = len(b"%d" % length)
    total = length + digits
    if len(b"%d" % total) != digits:
        total += 1
    return b"%d %s=%s\n" % (total, key, value)


def _decimal_time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), _NANO)
    if not fraction:
        return b"%s%d" % (sign, seconds)
    return (b"%s%d.%09d" % (sign, seconds, fraction)).rstrip(b"0")
