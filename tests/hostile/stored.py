"""Archives as they are stored, compressed in ways that want to do harm; and archives that are odd, and are taken."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from backports import zstd
from pydantic import ByteSize

from services.common.archive.errors import ArchiveError, ArchiveLimitError, CompressionError, MalformedArchiveError
from services.common.archive.limits import ArchiveLimits
from tests.hostile.archives import Case, link
from tests.support.tars import GNU_MAGIC, archive, gnu_long, header, member, pax

__all__ = ["REFUSED", "TAKEN", "Taken"]


@dataclass(frozen=True)
class Taken:
    """Stored bytes, and exactly what comes of them."""

    name: str
    build: Callable[[], bytes]
    tree: Mapping[str, str]
    """As `tests.support.policies.described` tells it."""
    note: str = ""
    """Part of the first note for people; nothing is noted otherwise."""


def skippable(content: bytes, *, length: int | None = None) -> bytes:
    """Return a frame that decoders of zstd pass over (RFC 8878, 3.1.2)."""
    return b"\x50\x2a\x4d\x18" + (len(content) if length is None else length).to_bytes(4, "little") + content


def _bomb(size: int) -> bytes:
    compressor = zlib.compressobj(9, wbits=31)
    return b"".join([*(compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)), compressor.flush()])


def _checked(content: bytes) -> bytes:
    return zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1})


def _wide(content: bytes) -> bytes:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(content) + compressor.flush()


def _with(content: bytes, at: int, value: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= value
    return bytes(changed)


FILE: Final = archive(member(b"f", b"data"))
GZIP: Final = gzip.compress(FILE, mtime=0)
ZSTD: Final = zstd.compress(FILE)
_SMALL: Final = ArchiveLimits(stream_size=ByteSize(1 << 20))
_EVEN: Final = ArchiveLimits(ratio=100, ratio_free_size=ByteSize(1 << 20))


def _refused(name: str, content: bytes, says: str, error: type[ArchiveError] = CompressionError) -> Case:
    return Case(name, lambda _: content, error, says)


REFUSED: Final = [
    _refused("gzip-magic-only", b"\x1f\x8b", "cut short"),
    _refused("gzip-cut-in-its-header", GZIP[:9], "cut short"),
    _refused("gzip-cut-in-its-data", GZIP[:40], "cut short"),
    _refused("gzip-cut-before-its-sum", GZIP[:-8], "cut short"),
    _refused("gzip-cut-in-its-sum", GZIP[:-3], "cut short"),
    _refused("gzip-wrong-sum", _with(GZIP, -8, 1), "the gzip stream is corrupt"),
    _refused("gzip-wrong-length", _with(GZIP, -4, 1), "the gzip stream is corrupt"),
    _refused("gzip-method", _with(GZIP, 2, 1), "the gzip stream is corrupt"),
    _refused("gzip-endless-name", GZIP[:3] + b"\x08" + GZIP[4:10] + b"n" * 70_000, "cut short"),
    _refused("gzip-followed-by-a-byte", GZIP + b"x", "followed by something else"),
    _refused("gzip-followed-by-zeros", GZIP + bytes(512), "followed by something else"),
    _refused("gzip-followed-by-zstd", GZIP + ZSTD, "followed by something else"),
    _refused("gzip-second-member-cut", gzip.compress(FILE[:700]) + gzip.compress(FILE[700:])[:-4], "cut short"),
    _refused("gzip-second-archive", GZIP + GZIP, "is not padding", MalformedArchiveError),
    _refused("gzip-in-gzip", gzip.compress(GZIP, mtime=0), "cut short", MalformedArchiveError),
    _refused("zstd-magic-only", ZSTD[:4], "cut short"),
    _refused("zstd-cut-in-its-header", ZSTD[:5], "cut short"),
    _refused("zstd-cut-in-its-data", ZSTD[:20], "cut short"),
    _refused("zstd-wrong-sum", _with(_checked(FILE), -1, 1), "the zstd stream is corrupt"),
    _refused("zstd-reserved-bit", _with(ZSTD, 4, 8), "the zstd stream is corrupt"),
    _refused("zstd-followed-by-gzip", ZSTD + GZIP, "followed by something else"),
    _refused("zstd-skippable-that-lies", ZSTD + skippable(b"x", length=(1 << 32) - 1), "cut short"),
    _refused("zstd-skippable-cut", skippable(b"")[:6], "cut short"),
    _refused("zstd-window", _wide(FILE), "zstd_window_log", ArchiveLimitError),
    _refused("xz", lzma.compress(FILE), "compressed with xz"),
    _refused("bzip2", bz2.compress(FILE), "compressed with bzip2"),
    _refused("lz4", b"\x04\x22\x4d\x18" + bytes(9), "compressed with lz4"),
    Case("gzip-bomb", lambda _: _bomb(16 << 20), ArchiveLimitError, "limit stream_size", _SMALL),
    Case("gzip-bomb-by-ratio", lambda _: _bomb(16 << 20), ArchiveLimitError, "limit ratio", _EVEN),
    Case("gzip-bomb-in-members", lambda _: _bomb(1 << 20) * 16, ArchiveLimitError, "limit ratio", _EVEN),
    Case("zstd-bomb", lambda _: zstd.compress(bytes(16 << 20)), ArchiveLimitError, "limit stream_size", _SMALL),
    Case("zstd-bomb-by-ratio", lambda _: zstd.compress(bytes(16 << 20)), ArchiveLimitError, "limit ratio", _EVEN),
    Case("zstd-bomb-in-frames", lambda _: zstd.compress(bytes(1 << 20)) * 16, ArchiveLimitError, "limit ratio", _EVEN),
    Case(
        "depth-of-10000", lambda _: gzip.compress(archive(pax({b"path": b"d/" * 10_000 + b"f"}), member(b"f", b"x"))),
        ArchiveLimitError, "limit path_length",
    ),
    Case(
        "pax-bomb",
        lambda _: gzip.compress(archive(pax({b"%06x" % n: b"" for n in range(120_000)}), member(b"f", b"x"))),
        ArchiveLimitError, "limit header_size",
    ),
    Case(
        "pax-bomb-of-headers", lambda _: gzip.compress(archive(*[pax({b"comment": b"x"})] * 20_000)),
        MalformedArchiveError, "two extended headers",
    ),
    Case(
        "gnu-name-without-end",
        lambda _: gzip.compress(header(b"n", b"L", size=1 << 40, magic=GNU_MAGIC) + bytes(1 << 20)),
        ArchiveLimitError, "limit header_size",
    ),
]  # fmt: skip
"""What is no layer's archive, each with the error that it is to be told."""


def _taken(name: str, *parts: bytes, note: str = "", **tree: str) -> Taken:
    return Taken(name, lambda: archive(*parts), tree, note)


_F: Final = {"f": "-rw-r--r-- 'data'"}

TAKEN: Final = [
    Taken("nothing", lambda: b"", {}),
    Taken("end-only", archive, {}),
    Taken("padded-to-a-megabyte", lambda: FILE + bytes(1 << 20), _F),
    Taken("gzip-members", lambda: gzip.compress(FILE[:700]) + gzip.compress(FILE[700:]), _F),
    Taken("gzip-a-member-for-each-byte", lambda: b"".join(gzip.compress(bytes([b]), 1, mtime=0) for b in FILE), _F),
    Taken("gzip-empty-members", lambda: gzip.compress(b"", mtime=0) * 5_000 + GZIP, _F),
    Taken("zstd-frames", lambda: zstd.compress(FILE[:700]) + zstd.compress(FILE[700:]), _F),
    Taken("zstd-empty-frames", lambda: zstd.compress(b"") * 5_000 + ZSTD, _F),
    Taken("zstd-skippable-frames", lambda: skippable(b"x" * 50) + ZSTD + skippable(b"y"), _F),
    Taken("zstd-skippable-frames-only", lambda: skippable(b"x") * 3, {}),
    Taken("zstd-many-skippable-frames", lambda: skippable(b"") * 5_000 + ZSTD, _F),
    _taken("no-end", member(b"f", b"data"), f="-rw-r--r-- 'data'"),
    _taken("last-of-two-counts", member(b"f", b"1"), member(b"f", b"data"), f="-rw-r--r-- 'data'"),
    _taken("file-after-directory", member(b"f/", b"", b"5"), member(b"f/g", b"1"), member(b"f", b"data"),
           f="-rw-r--r-- 'data'"),
    _taken("directory-after-file", member(b"d", b"1"), member(b"d/", b"", b"5", mode=0o755), d="drwxr-xr-x"),
    _taken("time-before-1970", pax({b"mtime": b"-1.5"}), member(b"f", b"data"), f="-rw-r--r-- @-1.5 'data'"),
    _taken("time-in-2200", pax({b"mtime": b"7258118400"}), member(b"f", b"data"),
           f="-rw-r--r-- @7.25812e+09 'data'"),
    _taken("owner-of-a-large-number", pax({b"uid": b"4294967294"}), member(b"f", b"data"),
           f="-rw-r--r-- 4294967294:0 'data'"),
    _taken("mode-with-the-type", member(b"f", b"data", mode=0o100644), f="-rw-r--r-- 'data'"),
    _taken("setuid", member(b"f", b"data", mode=0o6755), f="-rwsr-sr-x 'data'"),
    _taken("absolute", member(b"/f", b"data"), f="-rw-r--r-- 'data'"),
    _taken("dots-and-slashes", member(b".//./f", b"data"), f="-rw-r--r-- 'data'"),
    _taken("device-that-is-a-deletion", member(b"gone", typeflag=b"3"), gone="whiteout",
           note="the device 0:0 is a deletion"),
    _taken("whiteout", member(b".wh.gone"), gone="whiteout"),
    _taken("whiteout-with-content", member(b".wh.gone", b"content"), gone="whiteout"),
    _taken("whiteout-beside-what-it-deletes", member(b".wh.f"), member(b"f", b"data"), f="-rw-r--r-- 'data'"),
    _taken("device", member(b"null", typeflag=b"3", major=1, minor=3), null="crw-r--r-- 1:3"),
    _taken("fifo", member(b"p", typeflag=b"6"), p="prw-r--r--"),
    _taken("symlink-to-nowhere", link(b"l", b"/../../x"), l="lrwxrwxrwx -> /../../x"),
    _taken("gnu-long-name", gnu_long(b"n" * 255), member(b"x", b"data", magic=GNU_MAGIC),
           **{"n" * 255: "-rw-r--r-- 'data'"}),
    _taken("name-that-is-no-text", pax({b"path": b"\xff\x80"}), member(b"x", b"data"),
           **{"\udcff\udc80": "-rw-r--r-- 'data'"}),
    _taken("name-with-control-characters", member(b"\x1b[2J\n", b"data"), **{"\x1b[2J\n": "-rw-r--r-- 'data'"}),
    _taken("attribute-of-the-machine",
           pax({b"SCHILY.xattr.security.selinux": b"x", b"SCHILY.xattr.security.ima": b"x"}), member(b"f", b"data"),
           f="-rw-r--r-- 'data'"),
    _taken("attribute-of-overlayfs", pax({b"SCHILY.xattr.trusted.overlay.redirect": b"/etc"}), member(b"f", b"data"),
           note="'trusted.overlay.redirect' is not one that a layer carries, skipped",
           f="-rw-r--r-- 'data'"),
    _taken("attribute-of-nobody", pax({b"SCHILY.xattr.security.evil": b"x"}), member(b"f", b"data"),
           note="'security.evil' is not one that a layer carries, skipped", f="-rw-r--r-- 'data'"),
    _taken("attribute-of-the-users", pax({b"SCHILY.xattr.user.a": b"1"}), member(b"f", b"data"),
           f="-rw-r--r-- 'data' user.a=31"),
    _taken("sparse", pax({b"GNU.sparse.size": b"3", b"GNU.sparse.map": b"1,1"}), member(b"f", b"x"),
           f="-rw-r--r-- '\\x00x\\x00'"),
    _taken("file-of-aufs", member(b".wh..wh.plnk/1", b"x"), member(b"f", b"data"), f="-rw-r--r-- 'data'",
           note="of AUFS's own, skipped"),
]  # fmt: skip
"""What is odd and all the same a layer's archive, each with what it holds."""
