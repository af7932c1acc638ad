"""Archives that want to do harm, and what each must be told.

The classes are those of CVE-2007-4559, CVE-2018-15664, CVE-2019-14271, CVE-2019-20907, CVE-2021-29136, CVE-2021-32760,
CVE-2024-9676, CVE-2025-4517, CVE-2025-8194 and CVE-2025-62518; case names follow containerd's TestBreakouts and moby's
TestApplyLayerInvalid*.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pydantic import ByteSize

from services.common.archive.errors import (
    ArchiveError,
    ArchiveLimitError,
    MalformedArchiveError,
    UnsafeArchiveError,
    UnsupportedEntryError,
)
from services.common.archive.limits import ArchiveLimits
from tests.support.tars import GNU_MAGIC, archive, gnu_long, header, member, octal, pax, pax_record

__all__ = ["CASES", "Case", "link"]


@dataclass(frozen=True)
class Case:
    """One archive and what it must be told."""

    name: str
    build: Callable[[bytes], bytes]
    """Makes the archive from the absolute path of the canary directory."""
    error: type[ArchiveError]
    says: str
    """Part of the error's text."""
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)

    @property
    def local(self) -> str | None:
        """Part of what it is told where it is local; None where it is taken, as overlay2 takes it."""
        return None if self.name in _TAKEN_LOCALLY else _TOLD_LOCALLY.get(self.name, self.says)


def case(name: str, error: type[ArchiveError], says: str, *parts: bytes, limits: ArchiveLimits | None = None) -> Case:
    """Make a case whose archive does not depend on where it is unpacked."""
    return Case(name, lambda _: archive(*parts), error, says, limits or ArchiveLimits())


def link(name: bytes, target: bytes, typeflag: bytes = b"2") -> bytes:
    return pax({b"linkpath": target}) + member(name, typeflag=typeflag)


FILE: Final = member(b"f", b"data")

TRAVERSAL: Final = [
    case("dotdot", UnsafeArchiveError, "leaves the layer by a .. component", member(b"../canary/new", b"x")),
    case("slash-dotdot", UnsafeArchiveError, "'/../canary/new' leaves", member(b"/../canary/new", b"x")),
    case("inner-dotdot", UnsafeArchiveError, "'a/../../canary/new' leaves", member(b"a/../../canary/new", b"x")),
    case("dotdot-that-stays-inside", UnsafeArchiveError, "'a/../b' leaves", member(b"a/../b", b"x")),
    case("dotdot-directory", UnsafeArchiveError, "'../' leaves", member(b"../", b"", b"5", mode=0o777)),
    case("dotdot-last", UnsafeArchiveError, "'a/..' leaves", member(b"a/..", b"x")),
    case("dotdot-in-pax", UnsafeArchiveError, "leaves", pax({b"path": b"../canary/new"}), FILE),
    case("dotdot-in-gnu-name", UnsafeArchiveError, "leaves", gnu_long(b"../canary/new"), FILE),
    case("dotdot-in-prefix", UnsafeArchiveError, "leaves", member(b"canary/new", b"x", prefix=b"..")),
    case("dotdot-in-sparse-name", UnsafeArchiveError, "leaves",
         pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"../canary/new"),
              (b"GNU.sparse.realsize", b"0")]) + member(b"f", b"0\n".ljust(512, b"\0"))),
    case("dotdot-whiteout", UnsafeArchiveError, "leaves", member(b"../canary/.wh.victim", b"")),
    case("dotdot-opaque", UnsafeArchiveError, "leaves", member(b"../canary/.wh..wh..opq", b"")),
    case("nul-in-path", UnsafeArchiveError, "NUL byte", pax({b"path": b"f\0x"}), FILE),
    case("nul-in-target", UnsafeArchiveError, "NUL byte", pax({b"linkpath": b"f\0g"}), member(b"l", typeflag=b"2")),
    case("no-name", UnsafeArchiveError, "without a name", member(b"", b"x")),
    case("root-as-a-file", UnsafeArchiveError, "is the layer's root and cannot be a file", member(b".", b"x")),
    case("root-as-a-symlink", UnsafeArchiveError, "is the layer's root and cannot be a symbolic link",
         link(b"./", b"/etc")),
]  # fmt: skip

THROUGH_LINKS: Final = [
    Case("symlink-absolute", lambda out: archive(link(b"d", out), member(b"d/new", b"x")),
         UnsafeArchiveError, "'d' is no directory, but the archive has something below it"),
    case("symlink-relative", UnsafeArchiveError, "'d' is no directory",
         link(b"d", b"../canary"), member(b"d/new", b"x")),
    case("symlink-to-parent", UnsafeArchiveError, "'d' is no directory",
         link(b"d", b".."), member(b"d/canary/new", b"x")),
    case("symlink-to-itself", UnsafeArchiveError, "'d' is no directory", link(b"d", b"d"), member(b"d/new", b"x")),
    case("symlink-slash-dot", UnsafeArchiveError, "'d' is no directory",
         link(b"d", b"../canary/."), member(b"d/./new", b"x")),
    case("symlink-chain", UnsafeArchiveError, "'b' is no directory",
         link(b"a", b"../canary"), link(b"b", b"a"), member(b"b/new", b"x")),
    case("symlink-deep", UnsafeArchiveError, "'x/y/d' is no directory",
         link(b"x/y/d", b"../../../canary"), member(b"x/y/d/e/new", b"x")),
    case("symlink-in-place-of-a-directory", UnsafeArchiveError, "'d' is no directory",
         member(b"d/", b"", b"5"), member(b"d/a", b""), link(b"d", b"../canary"), member(b"d/new", b"x")),
    case("symlink-whiteout", UnsafeArchiveError, "'d' is no directory",
         link(b"d", b"../canary"), member(b"d/.wh.victim", b"")),
    case("symlink-opaque", UnsafeArchiveError, "'d' is no directory",
         link(b"d", b"../canary"), member(b"d/.wh..wh..opq", b"")),
    case("symlink-device", UnsafeArchiveError, "'d' is no directory",
         link(b"d", b"../canary"), member(b"d/null", typeflag=b"3", major=1, minor=3)),
    case("file-as-directory", UnsafeArchiveError, "'f' is no directory", FILE, member(b"f/new", b"x")),
    case("fifo-as-directory", UnsafeArchiveError, "'p' is no directory",
         member(b"p", typeflag=b"6"), member(b"p/new", b"x")),
]  # fmt: skip

HARD_LINKS: Final = [
    case("hardlink-dotdot", UnsafeArchiveError, "leaves the layer", link(b"l", b"../canary/victim", b"1")),
    Case("hardlink-absolute", lambda out: archive(link(b"l", out + b"/victim", b"1")),
         UnsafeArchiveError, "canary/victim', which this layer does not hold"),
    case("hardlink-through-symlink", UnsafeArchiveError, "'l' is a hard link to 'd/victim', which this layer does not",
         link(b"d", b"../canary"), link(b"l", b"d/victim", b"1")),
    case("hardlink-name-through-symlink", UnsafeArchiveError, "'d' is no directory",
         FILE, link(b"d", b"../canary"), link(b"d/new", b"f", b"1")),
    case("hardlink-to-nothing", UnsafeArchiveError, "'l' is a hard link to 'nothing', which this layer does not hold",
         link(b"l", b"nothing", b"1")),
    case("hardlink-to-a-directory", UnsafeArchiveError, "'l' is a hard link to the directory 'd'",
         member(b"d/", b"", b"5"), link(b"l", b"d", b"1")),
    case("hardlink-to-the-root", UnsafeArchiveError, "hard link to the root", link(b"l", b"./", b"1")),
    case("hardlink-to-itself", UnsafeArchiveError, "hard link to itself", link(b"l", b"l", b"1")),
    case("hardlink-into-itself", UnsafeArchiveError, "or into itself", member(b"l/x", b"1"), link(b"l", b"l/x", b"1")),
    case("hardlink-circle", UnsafeArchiveError, "which this layer does not hold",
         link(b"a", b"b", b"1"), link(b"b", b"c", b"1"), link(b"c", b"a", b"1")),
    case("hardlink-without-target", UnsafeArchiveError, "a hard link without a target", member(b"l", typeflag=b"1")),
    case("hardlink-to-a-whiteout", UnsafeArchiveError, "which this layer does not hold",
         member(b".wh.x", b""), link(b"l", b".wh.x", b"1")),
]  # fmt: skip

WHITEOUTS: Final = [
    case("bare-whiteout", UnsafeArchiveError, "'.wh.' is a whiteout that names nothing", member(b".wh.", b"")),
    case("bare-whiteout-below", UnsafeArchiveError, "'d/.wh.' is a whiteout", member(b"d/.wh.", b"")),
    case("whiteout-of-dot", UnsafeArchiveError, "'.wh..' is a whiteout that names nothing", member(b".wh..", b"")),
    case("whiteout-of-dotdot", UnsafeArchiveError, "'.wh...' is a whiteout that names nothing", member(b".wh...", b"")),
    case("below-a-whiteout", UnsafeArchiveError, "lies below a whiteout",
         member(b".wh.d/", b"", b"5"), member(b".wh.d/f", b"x")),
]  # fmt: skip

DISAGREEMENTS: Final = [
    case("pax-size-hides-an-entry", MalformedArchiveError, "its PAX size is 1024, its header's size 0",
         pax({b"size": b"1024"}), member(b"f", b"", size=0), member(b"hidden", b"x")),
    case("pax-size-shows-an-entry", MalformedArchiveError, "its PAX size is 0, its header's size 1024",
         pax({b"size": b"0"}), member(b"f", member(b"shown", b"x"))),
    case("pax-size-with-sparse", MalformedArchiveError, "readers disagree",
         pax({b"size": b"512", b"GNU.sparse.size": b"0"}), member(b"f", b"x" * 1024)),
    case("two-pax-headers", MalformedArchiveError, "two extended headers before one entry",
         pax({b"path": b"a"}), pax({b"path": b"b"}), FILE),
    case("one-key-twice", MalformedArchiveError, "'path' comes twice", pax([(b"path", b"a"), (b"path", b"b")]), FILE),
    case("one-xattr-twice", MalformedArchiveError, "comes twice", pax([(b"SCHILY.xattr.user.a", b"1")] * 2), FILE),
    case("two-gnu-names", MalformedArchiveError, "two GNU long names", gnu_long(b"a"), gnu_long(b"b"), FILE),
    case("two-gnu-link-names", MalformedArchiveError, "two GNU long link names",
         gnu_long(b"a", b"K"), gnu_long(b"b", b"K"), member(b"l", typeflag=b"2")),
    case("gnu-and-pax-name", MalformedArchiveError, "a GNU long name and another PAX path",
         pax({b"path": b"a"}), gnu_long(b"b"), FILE),
    case("gnu-and-pax-link", MalformedArchiveError, "a GNU long link name and another PAX linkpath",
         pax({b"linkpath": b"a"}), gnu_long(b"b", b"K"), member(b"l", typeflag=b"2")),
    case("global-path", MalformedArchiveError, "a global PAX header sets 'path'", pax({b"path": b"x"}, b"g"), FILE),
    case("global-size", MalformedArchiveError, "a global PAX header sets 'size'", pax({b"size": b"0"}, b"g"), FILE),
    case("global-after-extended", MalformedArchiveError, "a global PAX header between",
         pax({b"path": b"x"}), pax({b"comment": b"x"}, b"g"), FILE),
    case("gnu-header-with-a-prefix", MalformedArchiveError, "a GNU header with a ustar prefix",
         member(b"f", b"x", magic=GNU_MAGIC, prefix=b"usr/share")),
    case("file-with-a-slash", MalformedArchiveError, "a file whose name ends in a slash", member(b"d/", b"x")),
    case("empty-file-with-a-slash", MalformedArchiveError, "a file whose name ends in a slash", member(b"d/", b"")),
    case("directory-with-data", MalformedArchiveError, "a directory with 512 bytes of data",
         member(b"d/", bytes(512), b"5")),
    case("symlink-with-data", MalformedArchiveError, "a symbolic link with", member(b"l", b"x", b"2", link=b"t")),
    case("hardlink-with-data", MalformedArchiveError, "a hard link with", FILE, member(b"l", b"x", b"1", link=b"f")),
    case("device-with-data", MalformedArchiveError, "a character device with", member(b"n", b"x", b"3", major=1)),
    case("goes-on-after-one-zero-block", MalformedArchiveError, "goes on after a zero block", bytes(512), FILE),
    Case("goes-on-after-its-end", lambda _: archive(FILE) + FILE, MalformedArchiveError, "is not padding"),
    Case("followed-by-rubbish", lambda _: archive(FILE) + bytes(5000) + b"x", MalformedArchiveError, "not padding"),
]  # fmt: skip

MALFORMED: Final = [
    Case("not-a-tar", lambda _: b"<html>" * 200, MalformedArchiveError, "is not a number"),
    Case("shorter-than-a-block", lambda _: b"x" * 100, MalformedArchiveError, "cut short"),
    Case("cut-in-data", lambda _: member(b"f", b"x" * 5000)[:2000], MalformedArchiveError, "ends at byte 2000"),
    Case("cut-in-padding", lambda _: member(b"f", b"x")[:600], MalformedArchiveError, "cut short"),
    Case("ends-after-extended-header", lambda _: pax({b"path": b"f"}), MalformedArchiveError, "before its entry"),
    case("checksum", MalformedArchiveError, "checksum is 8", header(b"f", checksum=b"0000010\0")),
    case("checksum-of-65521-less", MalformedArchiveError, "checksum", bytes([255]) * 400 + bytes(112)),
    case("size-negative", MalformedArchiveError, "the size -1 is out of range", header(b"f", size=b"\xff" * 12)),
    case("size-with-a-sign", MalformedArchiveError, "size is not a number", header(b"f", size=b"-1         \0")),
    case("size-with-an-underscore", MalformedArchiveError, "size is not a number", header(b"f", size=b"1_0\0")),
    case("size-hexadecimal", MalformedArchiveError, "size is not a number", header(b"f", size=b"0x10\0")),
    case("size-decimal", MalformedArchiveError, "size is not a number", header(b"f", size=b"0000000089\0")),
    case("size-behind-a-nul", MalformedArchiveError, "size is not a number", header(b"f", size=b"\x000000000777")),
    case("size-absurd", MalformedArchiveError, "out of range", header(b"f", size=b"\x80" + b"\x7f" * 11)),
    case("pax-size-negative", MalformedArchiveError, "size is not a number: b'-512'", pax({b"size": b"-512"}), FILE),
    case("pax-size-absurd", MalformedArchiveError, "size is not a number", pax({b"size": b"9" * 5000}), FILE),
    case("pax-no-length", MalformedArchiveError, "has no length", pax(b"path=x\n"), FILE),
    case("pax-length-zero", MalformedArchiveError, "has no length", pax(b"0 path=x\n"), FILE),
    case("pax-length-with-a-sign", MalformedArchiveError, "has no length", pax(b"+10 path=x\n"), FILE),
    case("pax-length-leading-zero", MalformedArchiveError, "has no length", pax(b"010 path=x\n"), FILE),
    case("pax-length-too-short", MalformedArchiveError, "length is wrong", pax(b"2 path=x\n"), FILE),
    case("pax-length-too-long", MalformedArchiveError, "length is wrong", pax(b"99 path=x\n"), FILE),
    case("pax-length-absurd", MalformedArchiveError, "has no length", pax(b"9" * 400 + b" path=x\n"), FILE),
    case("pax-no-newline", MalformedArchiveError, "length is wrong", pax(b"9 path=xy"), FILE),
    case("pax-no-equals-sign", MalformedArchiveError, "has no keyword", pax(b"8 pathx\n"), FILE),
    case("pax-no-keyword", MalformedArchiveError, "has no keyword", pax(b"6 =xy\n"), FILE),
    case("pax-nul-in-keyword", MalformedArchiveError, "has no keyword", pax({b"pa\0th": b"x"}), FILE),
    case("pax-padding", MalformedArchiveError, "has no length", pax(pax_record(b"path", b"x") + bytes(20)), FILE),
    case("pax-time", MalformedArchiveError, "time is not a number", pax({b"mtime": b"1e9"}), FILE),
    case("pax-time-infinite", MalformedArchiveError, "time is not a number", pax({b"mtime": b"inf"}), FILE),
    case("pax-time-absurd", MalformedArchiveError, "time is not a number", pax({b"mtime": b"9" * 19}), FILE),
    case("time-absurd", MalformedArchiveError, "the time", header(b"f", mtime=b"\x80" + b"\x7f" * 11)),
    case("owner-wraps-to-root", MalformedArchiveError, "the owner 4294967296:0 is out of range",
         pax({b"uid": b"4294967296"}), FILE),
    case("owner-none", MalformedArchiveError, "the owner 4294967295:0", pax({b"uid": b"4294967295"}), FILE),
    case("owner-negative", MalformedArchiveError, "the owner -1:0", member(b"f", b"", uid=b"\xff" * 8)),
    case("group-negative", MalformedArchiveError, "group is not a number", pax({b"gid": b"-1"}), FILE),
    case("device-number", MalformedArchiveError, "the device 4096:0", member(b"n", typeflag=b"3", major=4096)),
    case("device-number-none", MalformedArchiveError, "major device number", member(b"n", typeflag=b"4", major=b"zz")),
    case("capability-that-is-none", MalformedArchiveError, "the kernel refuses the value of 'security.capability'",
         pax({b"SCHILY.xattr.security.capability": b"junk"}), FILE),
    case("sparse-overlap", MalformedArchiveError, "overlaps",
         pax({b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"0,10,5,10"}), member(b"f", b"x" * 20)),
    case("sparse-beyond-the-end", MalformedArchiveError, "leaves the file",
         pax({b"GNU.sparse.size": b"10", b"GNU.sparse.map": b"0,20"}), member(b"f", b"x" * 20)),
    case("sparse-more-than-stored", MalformedArchiveError, "tells of 20 bytes of data, its entry holds 4",
         pax({b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"0,20"}), FILE),
    case("sparse-count", MalformedArchiveError, "another number of extents",
         pax({b"GNU.sparse.size": b"9", b"GNU.sparse.numblocks": b"2", b"GNU.sparse.map": b"0,4"}), FILE),
    case("sparse-directory", MalformedArchiveError, "a sparse directory",
         pax({b"GNU.sparse.size": b"9", b"GNU.sparse.map": b""}), member(b"d/", b"", b"5")),
    case("sparse-map-without-numbers", MalformedArchiveError, "map",
         pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"}),
         member(b"f", b"x" * 1024)),
    case("sparse-map-cut", MalformedArchiveError, "map in its data is cut short",
         pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9"}),
         member(b"f", b"200\n" + b"0\n" * 254), FILE),
    case("sparse-version", MalformedArchiveError, "unknown version",
         pax({b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0"}), FILE),
    case("gnu-sparse-endless-map", MalformedArchiveError, "goes on without extents",
         member(b"f", typeflag=b"S", magic=GNU_MAGIC, prefix=bytes(482 - 345) + b"\x01" + octal(9, 12)), bytes(512)),
]  # fmt: skip

UNSUPPORTED: Final = [
    case(f"type-{typeflag!r}", UnsupportedEntryError, f"has the type {typeflag!r}", member(b"f", b"", typeflag))
    for typeflag in (b"7", b"D", b"V", b"M", b"N", b"X", b"A", b"\xff")
]

LIMITS: Final = [
    case("entries", ArchiveLimitError, "more than 3 entries (limit entries)", *[FILE] * 4,
         limits=ArchiveLimits(entries=3)),
    case("stream-size", ArchiveLimitError, "larger than 10000 bytes (limit stream_size)", member(b"f", b"x" * 10_000),
         limits=ArchiveLimits(stream_size=ByteSize(10_000))),
    case("tree-size", ArchiveLimitError, "with 'g' the files are larger than 7 bytes (limit tree_size)",
         FILE, member(b"g", b"data"), limits=ArchiveLimits(tree_size=ByteSize(7))),
    case("sparse-bomb", ArchiveLimitError, "limit tree_size",
         pax({b"GNU.sparse.size": b"9000000000000000000", b"GNU.sparse.map": b""}), member(b"f", b"")),
    case("path-length", ArchiveLimitError, "longer than 4095 bytes (limit path_length)",
         pax({b"path": b"/".join([b"n" * 99] * 41)}), FILE),
    case("name-length", ArchiveLimitError, "a component of more than 255 bytes", pax({b"path": b"n" * 256}), FILE),
    case("path-depth", ArchiveLimitError, "deeper than 256 directories (limit path_depth)",
         pax({b"path": b"d/" * 256 + b"f"}), FILE),
    case("link-length", ArchiveLimitError, "limit link_length", link(b"l", b"x" * 4096)),
    case("names-size", ArchiveLimitError, "longer than 100 bytes (limit names_size)",
         *[member(b"n" * 30, b"")] * 4, limits=ArchiveLimits(names_size=ByteSize(100))),
    case("pax-header-size", ArchiveLimitError, "limit header_size", pax({b"comment": b"x" * (1 << 20)}), FILE),
    case("gnu-name-size", ArchiveLimitError, "limit header_size", header(b"x", b"L", size=1 << 30)),
    case("xattr-count", ArchiveLimitError, "limit xattr_count",
         pax({b"SCHILY.xattr.user.%d" % n: b"" for n in range(257)}), FILE),
    case("xattr-name", ArchiveLimitError, "limit xattr_name_length",
         pax({b"SCHILY.xattr.user." + b"n" * 251: b""}), FILE),
    case("xattr-value", ArchiveLimitError, "limit xattr_value_size",
         pax({b"SCHILY.xattr.user.a": b"x" * 65_537}), FILE),
    case("sparse-extents", ArchiveLimitError, "limit sparse_extents",
         pax({b"GNU.sparse.size": b"9", b"GNU.sparse.map": b"0,1,2,1,4,1"}), member(b"f", b"xxx"),
         limits=ArchiveLimits(sparse_extents=2)),
    case("seconds", ArchiveLimitError, "took longer than 1e-09 s, 0 bytes were read (limit seconds)", FILE,
         limits=ArchiveLimits(seconds=1e-9)),
]  # fmt: skip

CASES: Final = [
    *TRAVERSAL,
    *THROUGH_LINKS,
    *HARD_LINKS,
    *WHITEOUTS,
    *DISAGREEMENTS,
    *MALFORMED,
    *UNSUPPORTED,
    *LIMITS,
]

_TAKEN_LOCALLY: Final = frozenset(
    {
        *("dotdot-that-stays-inside", "dotdot-last", "no-name", "root-as-a-file", "root-as-a-symlink"),
        *("symlink-to-parent", "below-a-whiteout"),
        *("pax-size-hides-an-entry", "pax-size-shows-an-entry", "two-pax-headers", "one-key-twice", "one-xattr-twice"),
        *("two-gnu-names", "two-gnu-link-names", "gnu-and-pax-name", "gnu-and-pax-link", "gnu-header-with-a-prefix"),
        *("global-path", "global-size", "global-after-extended", "file-with-a-slash", "empty-file-with-a-slash"),
        *("directory-with-data", "goes-on-after-its-end", "followed-by-rubbish", "sparse-version"),
        *("ends-after-extended-header", "size-behind-a-nul", "owner-wraps-to-root", "owner-none", "owner-negative"),
        *("group-negative", "device-number", "entries", "stream-size", "tree-size", "path-length", "path-depth"),
        "names-size",
    }
)
"""Cases that a node takes, as overlay2 does."""

_TOLD_LOCALLY: Final = {
    "pax-size-with-sparse": "tells of 0 bytes of data, its entry holds 512",
    "symlink-with-data": "checksum",
    "hardlink-with-data": "checksum",
    "device-with-data": "checksum",
    "pax-size-negative": "the size -512 is out of range",
    "sparse-bomb": "File too large",
    "link-length": "File name too long",
    "xattr-count": "No space left on device",
    "xattr-name": "Numerical result out of range",
    "xattr-value": "Argument list too long",
}
"""What the others are told where that is something else: by what comes after, or by the file system."""
