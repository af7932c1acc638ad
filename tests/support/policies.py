"""Archives that are taken in one way when they are published and in another when they are local.

What is local is taken as overlay2 takes it; the trees are those that a real one makes, and a test holds them to it.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.archive.errors import ArchiveError, ArchiveLimitError, MalformedArchiveError, UnsafeArchiveError
from tests.support.tars import GNU_MAGIC, archive, blocks, gnu_long, header, member, pax

__all__ = ["DIFFERENCES", "Difference", "described"]


@dataclass(frozen=True)
class Difference:
    """One archive, and what both policies make of it."""

    name: str
    archive: bytes
    published: tuple[type[ArchiveError], str] | None
    """How it is refused; None where it is published, with the local tree or, of attributes, less."""
    local: Mapping[str, str] | str
    """The tree, as `described` tells it, or part of the refusal."""


def described(tree: Path) -> dict[str, str]:
    """Tell what is in a tree: type and permissions, owner unless it is root, time unless it is 0, content, attributes.

    The second and further names of a file refer to the first. Times of directories are not told, nor those of links,
    devices and whiteouts, nor a whiteout's owner.
    """
    found: dict[str, str] = {}
    first: dict[int, str] = {}
    for directory, directories, files in os.walk(tree):
        directories.sort()
        for name in sorted((*directories, *files)):
            place = Path(directory, name)
            path = str(place.relative_to(tree))
            status = place.lstat()
            if not stat.S_ISDIR(status.st_mode) and first.setdefault(status.st_ino, path) != path:
                found[path] = f"= {first[status.st_ino]}"
            else:
                found[path] = _described(place, status)
    return found


def _described(place: Path, status: os.stat_result) -> str:
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return "whiteout"
    text = stat.filemode(status.st_mode)
    if status.st_uid or status.st_gid:
        text += f" {status.st_uid}:{status.st_gid}"
    if stat.S_ISREG(status.st_mode):
        text += f" @{status.st_mtime:g}" if status.st_mtime else ""
        text += f" {place.read_text()!r}"
    elif stat.S_ISLNK(status.st_mode):
        text += f" -> {place.readlink()}"
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        text += f" {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    names = sorted(name for name in os.listxattr(place, follow_symlinks=False) if name != "security.selinux")
    return text + "".join(f" {name}={os.getxattr(place, name, follow_symlinks=False).hex()}" for name in names)


def _link(name: bytes, target: bytes) -> bytes:
    return member(name, typeflag=b"2", link=target, mode=0o777)


def _hard(name: bytes, target: bytes, **fields: int) -> bytes:
    return member(name, b"", b"1", link=target, **fields)


def _directory(name: bytes) -> bytes:
    return member(name, typeflag=b"5", mode=0o755)


def _xattr(name: bytes, value: bytes) -> bytes:
    return pax({b"SCHILY.xattr." + name: value})


def _acl(*entries: tuple[int, int, int]) -> bytes:
    fields = (tag.to_bytes(2, "little") + mode.to_bytes(2, "little") + who.to_bytes(4, "little")
              for tag, mode, who in entries)  # fmt: skip
    return b"\2\0\0\0" + b"".join(fields)


_NOBODY: Final = 0xFFFF_FFFF
_ACL: Final = _acl((1, 6, _NOBODY), (2, 4, 5), (4, 4, _NOBODY), (16, 4, _NOBODY), (32, 4, _NOBODY))
"""An access list as the kernel has it: owner rw, user 5 r, group r, mask r, others r."""
_DEFAULT_ACL: Final = _acl((1, 7, _NOBODY), (2, 4, 5), (4, 5, _NOBODY), (16, 5, _NOBODY), (32, 5, _NOBODY))

_DEFAULT: Final = f"system.posix_acl_default={_DEFAULT_ACL.hex()}"


def _inherited(owner: int, others: int) -> str:
    """Tell of the access list that a default one gives to what is made below it."""
    entries = (1, owner, _NOBODY), (2, 4, 5), (4, 5, _NOBODY), (16, others, _NOBODY), (32, others, _NOBODY)
    return f"system.posix_acl_access={_acl(*entries).hex()}"


_F: Final = member(b"f", b"data")
_LIB: Final = _directory(b"usr/") + _directory(b"usr/lib/") + _link(b"lib", b"usr/lib")
_DEEP: Final = "d/" * 300


def _malformed(says: str) -> tuple[type[ArchiveError], str]:
    return MalformedArchiveError, says


def _unsafe(says: str) -> tuple[type[ArchiveError], str]:
    return UnsafeArchiveError, says


_NO_DIRECTORY: Final = _unsafe("'lib' is no directory, but the archive has something below it")

_TABLE: Final[list[tuple[str, bytes, tuple[type[ArchiveError], str] | None]]] = [
    # Below a symbolic link
    ("below-a-symlink", archive(_LIB, member(b"lib/x", b"x")), _NO_DIRECTORY),
    ("below-an-absolute-symlink", archive(_directory(b"usr/lib/"), _link(b"lib", b"/usr/lib"), member(b"lib/x", b"x")),
     _NO_DIRECTORY),
    ("below-a-symlink-that-climbs", archive(_directory(b"usr/lib/"), _link(b"a/lib", b"../../../../usr/./lib/"),
     member(b"a/lib/x", b"x")), _unsafe("'a/lib' is no directory")),
    ("below-a-symlink-deeper", archive(_LIB, member(b"lib/a/b/x", b"x"), member(b"lib/a/b/y", b"y")), _NO_DIRECTORY),
    ("below-a-symlink-in-a-symlink", archive(_LIB, _link(b"usr/lib/up", b".."), member(b"lib/up/x", b"x")),
     _NO_DIRECTORY),
    ("below-a-symlink-to-the-root", archive(_link(b"lib", b"/"), member(b"lib/x", b"x")), _NO_DIRECTORY),
    ("below-40-symlinks", archive(_directory(b"d/"), *[_link(b"l%d" % n, b"l%d" % (n + 1)) for n in range(39)],
     _link(b"l39", b"d"), member(b"l0/x", b"x")), _unsafe("'l0' is no directory")),
    ("below-41-symlinks", archive(_directory(b"d/"), *[_link(b"l%d" % n, b"l%d" % (n + 1)) for n in range(40)],
     _link(b"l40", b"d"), member(b"l0/x", b"x")), _unsafe("'l0' is no directory")),
    ("below-a-symlink-of-a-lower-layer", archive(member(b"lib/x", b"x")), None),
    ("below-a-dangling-symlink", archive(_link(b"lib", b"usr/lib"), member(b"lib/x", b"x")), _NO_DIRECTORY),
    ("deeper-below-a-dangling-symlink", archive(_link(b"lib", b"usr/lib"), member(b"lib/y/x", b"x")), _NO_DIRECTORY),
    ("below-a-loop", archive(_link(b"lib", b"b"), _link(b"b", b"lib"), member(b"lib/x", b"x")), _NO_DIRECTORY),
    ("below-a-symlink-to-a-file", archive(_F, _link(b"lib", b"f"), member(b"lib/x", b"x")), _NO_DIRECTORY),
    ("a-whiteout-below-a-symlink", archive(_LIB, member(b"lib/.wh.x")), _NO_DIRECTORY),
    ("an-opaque-marker-below-a-symlink", archive(_LIB, member(b"lib/.wh..wh..opq")), _NO_DIRECTORY),
    ("a-device-below-a-symlink", archive(_LIB, member(b"lib/n", typeflag=b"3", major=1, minor=3)), _NO_DIRECTORY),
    ("a-hard-link-through-a-symlink", archive(_LIB, member(b"usr/lib/x", b"x"), _hard(b"h", b"lib/x")),
     _unsafe("'h' is a hard link to 'lib/x', which this layer does not hold")),
    ("a-hard-link-below-a-symlink", archive(_LIB, _F, _hard(b"lib/h", b"f")), _NO_DIRECTORY),
    # Names that climb
    ("dotdot-of-a-directory", archive(_directory(b"a/"), member(b"a/../b", b"x")), _unsafe("'a/../b' leaves")),
    ("dotdot-of-nothing", archive(member(b"a/../b", b"x")), _unsafe("leaves")),
    ("dotdot-above-the-root", archive(member(b"../../a/../b", b"x")), _unsafe("leaves")),
    ("dotdot-above-the-root-in-between", archive(member(b"a/../../b", b"x")), _unsafe("leaves")),
    ("dotdot-of-a-symlink", archive(_LIB, member(b"lib/../x", b"x")), _unsafe("leaves")),
    ("dotdot-in-a-hard-link", archive(_F, _hard(b"d/h", b"d/../f")), _unsafe("leaves")),
    ("dotdot-in-a-whiteout", archive(_directory(b"a/"), member(b"b/../a/.wh.x")), _unsafe("leaves")),
    ("the-root-as-a-file", archive(member(b".", b"xx"), _F), _unsafe("cannot be a file")),
    ("the-root-as-a-symlink", archive(_link(b"a/..", b"/etc"), _F), _unsafe("leaves")),
    ("no-name", archive(member(b"", b"xx"), _F), _unsafe("without a name")),
    # Sizes
    ("a-directory-with-a-size", archive(header(b"d/", b"5", mode=0o755, size=512), _F), _malformed("a directory with")),
    ("a-symlink-with-a-size", archive(header(b"l", b"2", link=b"t", size=77), _F), _malformed("a symbolic link with")),
    ("a-hard-link-with-a-size", archive(_F, header(b"l", b"1", link=b"f", size=4), member(b"g", b"g")),
     _malformed("a hard link with 4 bytes")),
    ("a-device-with-a-size", archive(header(b"n", b"3", major=1, minor=3, size=9), _F),
     _malformed("a character device with")),
    ("a-directory-with-data", archive(member(b"d/", b"x" * 512, b"5", mode=0o755), _F), _malformed("a directory with")),
    ("a-directory-with-a-pax-size", archive(pax({b"size": b"1000"}), _directory(b"d/"), _F), _malformed("PAX size")),
    ("size-in-pax-only", archive(pax({b"size": b"4"}), header(b"f"), blocks(b"data"), member(b"g", b"g")),
     _malformed("its PAX size is 4, its header's size 0")),
    ("another-size-in-pax", archive(pax({b"size": b"2"}), _F, member(b"g", b"g")), _malformed("its PAX size is 2")),
    ("size-behind-zero-bytes", archive(header(b"f", size=b"\x000000000004"), blocks(b"data")),
     _malformed("size is not a number")),
    ("size-before-rubbish", archive(header(b"f", size=b"0000004\x00junk"), blocks(b"data")),
     _malformed("size is not a number")),
    ("size-with-a-sign", archive(pax({b"size": b"+4"}), _F), _malformed("size is not a number")),
    # Headers
    ("global-time-and-owner", archive(pax({b"mtime": b"77", b"uid": b"12"}, b"g"), _F),
     _malformed("a global PAX header sets 'mtime, uid'")),
    ("global-path", archive(pax({b"path": b"x"}, b"g"), _F), _malformed("a global PAX header sets 'path'")),
    ("global-behind-an-extended-one", archive(pax({b"path": b"x"}), pax({b"comment": b"x"}, b"g"), _F),
     _malformed("between an entry and its extended header")),
    ("a-key-twice", archive(pax([(b"path", b"a"), (b"path", b"b")]), _F), _malformed("'path' comes twice")),
    ("an-attribute-twice", archive(pax([(b"SCHILY.xattr.user.a", b"1"), (b"SCHILY.xattr.user.a", b"2")]), _F),
     _malformed("comes twice")),
    ("two-pax-headers", archive(pax({b"path": b"a", b"mtime": b"5"}), pax({b"uid": b"3"}), _F),
     _malformed("two extended headers")),
    ("two-gnu-names", archive(gnu_long(b"a"), gnu_long(b"b"), _F), _malformed("two GNU long names")),
    ("an-empty-gnu-name", archive(gnu_long(b""), _F), _malformed("an empty GNU long name")),
    ("pax-and-gnu-name", archive(gnu_long(b"b"), pax({b"path": b"a"}), _F), _malformed("and another PAX path")),
    ("pax-and-gnu-target", archive(pax({b"linkpath": b"a"}), gnu_long(b"b", b"K"), _link(b"l", b"c")),
     _malformed("and another PAX linkpath")),
    ("gnu-header-with-a-prefix", archive(member(b"f", b"x", magic=GNU_MAGIC, prefix=b"usr/share")),
     _malformed("a GNU header with a ustar prefix")),
    ("an-unknown-sparse-form", archive(pax({b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0"}), _F),
     _malformed("unknown version")),
    ("a-file-with-a-slash", archive(member(b"d/", b"x"), _F), _malformed("name ends in a slash")),
    ("an-old-directory-with-a-size", archive(header(b"d/", b"\0", mode=0o755, size=512), _F),
     _malformed("name ends in a slash")),
    # The end
    ("a-second-archive", archive(_F) + archive(member(b"g", b"g")), _malformed("is not padding")),
    ("rubbish-behind-the-end", archive(_F) + b"rubbish" * 999, _malformed("is not padding")),
    ("no-padding", _F[:516], _malformed("cut short")),
    ("some-padding", _F[:600], _malformed("cut short")),
    ("an-extended-header-without-its-entry", _F + pax({b"path": b"x"}), _malformed("before its entry")),
    ("cut-in-a-header", _F + bytes(100), _malformed("cut short")),
    ("one-zero-block-in-between", _F + bytes(512) + archive(_F), _malformed("goes on after a zero block")),
    # Owners and devices
    ("owner-beyond-32-bits", archive(pax({b"uid": b"4294967296", b"gid": b"4294967301"}), _F),
     _malformed("the owner 4294967296:4294967301")),
    ("owner-none", archive(pax({b"uid": b"4294967295", b"gid": b"4294967295"}), _F), _malformed("the owner")),
    ("owner-negative", archive(pax({b"uid": b"-2", b"gid": b"-7"}), _F), _malformed("is not a number")),
    ("owner-negative-in-binary", archive(member(b"f", b"data", uid=b"\xff" * 8)), _malformed("the owner -1:0")),
    ("owner-of-63-bits", archive(pax({b"uid": b"9223372036854775807"}), _F), _malformed("the owner")),
    ("owner-with-zeros", archive(pax({b"uid": b"007"}), _F), _malformed("is not a number")),
    ("device-out-of-range", archive(member(b"n", typeflag=b"3", major=4097, minor=(1 << 20) + 5)),
     _malformed("the device 4097:1048581")),
    # AUFS
    ("a-hard-link-into-plnk", archive(_directory(b".wh..wh.plnk/"), member(b".wh..wh.plnk/1.2", b"data"),
     _hard(b"a", b".wh..wh.plnk/1.2"), _hard(b"b", b".wh..wh.plnk/1.2")), _unsafe("which this layer does not hold")),
    ("aufs-files", archive(member(b".wh..wh.aufs", b"1"), member(b"d/.wh..wh.orph", b"x"), _F), None),
    ("below-a-whiteout", archive(_directory(b"d/"), member(b"d/.wh.x/f", b"x")), _unsafe("lies below a whiteout")),
    # What CVMFS takes for a deletion
    ("whiteout-in-capitals", archive(member(b".WH.f", b"x")), _unsafe("'.WH.f' cannot be published: CVMFS takes")),
    ("whiteout-in-mixed-case", archive(member(b"d/.Wh.f", b"x")), _unsafe("CVMFS takes '.Wh.f' for a deletion")),
    ("directory-in-capitals", archive(member(b"d/.wH./f", b"x")), _unsafe("CVMFS takes '.wH.' for a deletion")),
    ("hard-link-in-capitals", archive(_F, _hard(b".WH.f", b"f")), _unsafe("CVMFS takes '.WH.f' for a deletion")),
    ("whiteout-of-capitals", archive(member(b".wh..WH.f")), None),
    # Attributes
    ("an-access-list", archive(_xattr(b"system.posix_acl_access", _ACL), _F), None),
    ("a-default-access-list", archive(_xattr(b"system.posix_acl_default", _DEFAULT_ACL), _directory(b"d/"),
     member(b"d/f", b"x", mode=0o666), member(b"d/e/g", b"x")), None),
    ("an-access-list-of-a-fifo", archive(_xattr(b"system.posix_acl_access", _ACL), member(b"p", typeflag=b"6")), None),
    ("trusted", archive(_xattr(b"trusted.a", b"\0\1"), _F, _xattr(b"trusted.b", b""), _directory(b"d/")), None),
    ("trusted-of-others", archive(*[_xattr(b"trusted.a", b"1") + part for part in (
        _link(b"l", b"t"), member(b"p", typeflag=b"6"), member(b"n", typeflag=b"3", major=1, minor=3))]), None),
    ("a-bad-attribute", archive(_xattr(b"security.capability", b"junk"), _F),
     _malformed("the kernel refuses the value of 'security.capability'")),
    # Size and depth
    ("deep", archive(pax({b"path": _DEEP.encode() + b"f"}), _F), (ArchiveLimitError, "limit path_depth")),
]  # fmt: skip

_D: Final = "drwxr-xr-x"
_DATA: Final = "-rw-r--r-- 'data'"
_X: Final = "-rw-r--r-- 'x'"
_LIB_TREE: Final = {"lib": "lrwxrwxrwx -> usr/lib", "usr": _D, "usr/lib": _D}

_LOCALLY: Final[dict[str, Mapping[str, str] | str]] = {
    "below-a-symlink": {
        "lib": "lrwxrwxrwx -> usr/lib",
        "usr": _D,
        "usr/lib": _D,
        "usr/lib/x": _X,
    },
    "below-an-absolute-symlink": {
        "lib": "lrwxrwxrwx -> /usr/lib",
        "usr": _D,
        "usr/lib": _D,
        "usr/lib/x": _X,
    },
    "below-a-symlink-that-climbs": {
        "a": _D,
        "usr": _D,
        "a/lib": "lrwxrwxrwx -> ../../../../usr/lib",
        "usr/lib": _D,
        "usr/lib/x": _X,
    },
    "below-a-symlink-deeper": {
        "lib": "lrwxrwxrwx -> usr/lib",
        "usr": _D,
        "usr/lib": _D,
        "usr/lib/a": _D,
        "usr/lib/a/b": _D,
        "usr/lib/a/b/x": _X,
        "usr/lib/a/b/y": "-rw-r--r-- 'y'",
    },
    "below-a-symlink-in-a-symlink": {
        "lib": "lrwxrwxrwx -> usr/lib",
        "usr": _D,
        "usr/lib": _D,
        "usr/x": _X,
        "usr/lib/up": "lrwxrwxrwx -> ..",
    },
    "below-a-symlink-to-the-root": {"lib": "lrwxrwxrwx -> /", "x": _X},
    "below-41-symlinks": "'l40' is no directory",
    "below-a-symlink-of-a-lower-layer": {"lib": _D, "lib/x": _X},
    "below-a-dangling-symlink": "'lib' is no directory, but the archive has something below it",
    "deeper-below-a-dangling-symlink": "the link leads to 'usr', which this layer does not hold",
    "below-a-loop": "'lib' is no directory",
    "below-a-symlink-to-a-file": "'f' is no directory",
    "a-whiteout-below-a-symlink": {
        "lib": "lrwxrwxrwx -> usr/lib",
        "usr": _D,
        "usr/lib": _D,
        "usr/lib/x": "whiteout",
    },
    "an-opaque-marker-below-a-symlink": {
        "lib": "lrwxrwxrwx -> usr/lib",
        "usr": _D,
        "usr/lib": "drwxr-xr-x trusted.overlay.opaque=79",
    },
    "a-device-below-a-symlink": {
        "lib": "lrwxrwxrwx -> usr/lib",
        "usr": _D,
        "usr/lib": _D,
        "usr/lib/n": "crw-r--r-- 1:3",
    },
    "a-hard-link-through-a-symlink": {
        "h": _X,
        "lib": "lrwxrwxrwx -> usr/lib",
        "usr": _D,
        "usr/lib": _D,
        "usr/lib/x": "= h",
    },
    "a-hard-link-below-a-symlink": {
        "f": _DATA,
        "lib": "lrwxrwxrwx -> usr/lib",
        "usr": _D,
        "usr/lib": _D,
        "usr/lib/h": "= f",
    },
    "dotdot-of-a-directory": {"a": _D, "b": _X},
    "dotdot-of-nothing": {"b": _X},
    "dotdot-above-the-root": "'../../a/../b' leaves the layer by a .. component",
    "dotdot-above-the-root-in-between": "leaves the layer",
    "dotdot-of-a-symlink": {
        "lib": "lrwxrwxrwx -> usr/lib",
        "usr": _D,
        "x": _X,
        "usr/lib": _D,
    },
    "dotdot-in-a-hard-link": {"d": _D, "f": _DATA, "d/h": "= f"},
    "dotdot-in-a-whiteout": {"a": _D, "a/x": "whiteout"},
    "the-root-as-a-file": {"f": _DATA},
    "the-root-as-a-symlink": {"f": _DATA},
    "no-name": {"f": _DATA},
    "a-directory-with-a-size": {"d": _D, "f": _DATA},
    "a-symlink-with-a-size": {"f": _DATA, "l": "lrwxrwxrwx -> t"},
    "a-hard-link-with-a-size": {"f": _DATA, "g": "-rw-r--r-- 'g'", "l": "= f"},
    "a-device-with-a-size": {"f": _DATA, "n": "crw-r--r-- 1:3"},
    "a-directory-with-data": "a header's checksum",
    "a-directory-with-a-pax-size": {"d": _D, "f": _DATA},
    "size-in-pax-only": {"f": _DATA, "g": "-rw-r--r-- 'g'"},
    "another-size-in-pax": {"f": "-rw-r--r-- 'da'", "g": "-rw-r--r-- 'g'"},
    "size-behind-zero-bytes": {"f": _DATA},
    "size-before-rubbish": {"f": _DATA},
    "size-with-a-sign": {"f": _DATA},
    "global-time-and-owner": {"f": _DATA},
    "global-path": {"f": _DATA},
    "global-behind-an-extended-one": {"f": _DATA},
    "a-key-twice": {"b": _DATA},
    "an-attribute-twice": {"f": "-rw-r--r-- 'data' user.a=32"},
    "two-pax-headers": {"f": "-rw-r--r-- 3:0 'data'"},
    "two-gnu-names": {"b": _DATA},
    "an-empty-gnu-name": {"f": _DATA},
    "pax-and-gnu-name": {"b": _DATA},
    "pax-and-gnu-target": {"l": "lrwxrwxrwx -> b"},
    "gnu-header-with-a-prefix": {"usr": _D, "usr/share": _D, "usr/share/f": _X},
    "an-unknown-sparse-form": {"f": _DATA},
    "a-file-with-a-slash": {"d": _X, "f": _DATA},
    "an-old-directory-with-a-size": {"d": _D, "f": _DATA},
    "a-second-archive": {"f": _DATA},
    "rubbish-behind-the-end": {"f": _DATA},
    "no-padding": "cut short",
    "some-padding": "cut short",
    "an-extended-header-without-its-entry": {"f": _DATA},
    "cut-in-a-header": "cut short",
    "one-zero-block-in-between": "goes on after a zero block",
    "owner-beyond-32-bits": {"f": "-rw-r--r-- 0:5 'data'"},
    "owner-none": {"f": _DATA},
    "owner-negative": {"f": "-rw-r--r-- 4294967294:4294967289 'data'"},
    "owner-negative-in-binary": {"f": _DATA},
    "owner-of-63-bits": {"f": _DATA},
    "owner-with-zeros": {"f": "-rw-r--r-- 7:0 'data'"},
    "device-out-of-range": {"n": "crw-r--r-- 1:5"},
    "a-hard-link-into-plnk": {
        ".wh..wh.plnk": _D,
        ".wh.plnk": "whiteout",
        "a": _DATA,
        "b": "= a",
        ".wh..wh.plnk/1.2": "= a",
    },
    "aufs-files": {".wh.aufs": "whiteout", "d": _D, "f": _DATA, "d/.wh.orph": "whiteout"},
    "below-a-whiteout": {"d": _D, "d/.wh.x": _D, "d/.wh.x/f": _X},
    "whiteout-in-capitals": {".WH.f": _X},
    "whiteout-in-mixed-case": {"d": _D, "d/.Wh.f": _X},
    "directory-in-capitals": {"d": _D, "d/.wH.": _D, "d/.wH./f": _X},
    "hard-link-in-capitals": {".WH.f": _DATA, "f": "= .WH.f"},
    "whiteout-of-capitals": {".WH.f": "whiteout"},
    "an-access-list": {"f": "-rw-r--r-- 'data' system.posix_acl_access=" + _ACL.hex()},
    "an-access-list-of-a-fifo": {"p": "prw-r--r-- system.posix_acl_access=" + _ACL.hex()},
    "trusted": {"d": "drwxr-xr-x trusted.b=", "f": "-rw-r--r-- 'data' trusted.a=0001"},
    "trusted-of-others": {
        "l": "lrwxrwxrwx -> t trusted.a=31",
        "n": "crw-r--r-- 1:3 trusted.a=31",
        "p": "prw-r--r-- trusted.a=31",
    },
    "a-bad-attribute": "the kernel refuses the value",
    "below-40-symlinks": {
        "d": _D,
        "d/x": _X,
        **{f"l{number}": f"lrwxrwxrwx -> l{number + 1}" for number in range(39)},
        "l39": "lrwxrwxrwx -> d",
    },
    "a-default-access-list": {
        "d": f"drwxr-xr-x {_DEFAULT}",
        "d/e": f"drwxr-xr-x {_inherited(7, 5)} {_DEFAULT}",
        "d/e/g": f"-rw-r--r-- 'x' {_inherited(6, 4)}",
        "d/f": f"-rw-rw-rw- 'x' {_inherited(6, 6)}",
    },
    "deep": {
        **{_DEEP[: 2 * depth - 1]: _D for depth in range(1, 301)},
        f"{_DEEP}f": _DATA,
    },
}

DIFFERENCES: Final = [Difference(name, content, published, _LOCALLY[name]) for name, content, published in _TABLE]
