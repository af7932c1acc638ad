"""Layers of every shape, two of each, one to go on top of the other; each pair below a directory of its own."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.support.layers import CAPABILITY
from tests.support.tars import GNU_MAGIC, gnu_long, member, octal, pax

__all__ = ["SHAPES", "SPARSE", "Item", "Shape"]

_MTIME: Final = 1_600_000_000


@dataclass(frozen=True, kw_only=True)
class Item:
    """One entry; an `@` in its names stands for the directory of the shape."""

    name: bytes
    typeflag: bytes = b"0"
    content: bytes = b""
    link: bytes = b""
    fields: dict[str, int | bytes] = field(default_factory=dict)
    """Other fields of its header."""
    records: Sequence[tuple[bytes, bytes]] = ()
    """Records of an extended header before it."""
    kind_of_records: bytes = b"x"
    long_name: bytes = b""
    """Its name in an entry of GNU's before it."""
    long_link: bytes = b""
    """Its link target in one."""

    def render(self, at: bytes) -> bytes:
        """Return the entry below a directory."""
        fields = {
            key: value.replace(b"@", at) if isinstance(value, bytes) else value for key, value in self.fields.items()
        }
        return b"".join(
            [
                pax([(key, value.replace(b"@", at)) for key, value in self.records], self.kind_of_records)
                if self.records
                else b"",
                gnu_long(self.long_name.replace(b"@", at)) if self.long_name else b"",
                gnu_long(self.long_link.replace(b"@", at), b"K") if self.long_link else b"",
                member(
                    self.name.replace(b"@", at),
                    self.content,
                    self.typeflag,
                    link=self.link.replace(b"@", at),
                    **{"mtime": _MTIME, **fields},
                ),
            ]
        )


@dataclass(frozen=True)
class Shape:
    """A pair of layers."""

    name: str
    below: Sequence[Item]
    """Entries of the lower layer."""
    above: Sequence[Item]
    """Entries of the upper layer."""
    for_overlay2: Sequence[Item] | None = None
    """The same as `above` in a form that the engine's own extraction takes; None if it takes `above`."""
    implied: Sequence[bytes] = ()
    """Directories that the topmost archive with them does not describe: they have the time of the extraction."""


def _item(name: bytes, typeflag: bytes = b"0", content: bytes = b"", link: bytes = b"", **fields: int | bytes) -> Item:
    return Item(name=name, typeflag=typeflag, content=content, link=link, fields=fields)


def _directory(name: bytes, **fields: int | bytes) -> Item:
    return Item(name=name + b"/", typeflag=b"5", fields={"mode": 0o755, **fields})


def _file(name: bytes, content: bytes = b"content", **fields: int | bytes) -> Item:
    return Item(name=name, content=content, fields=fields)


def _whiteout(name: bytes) -> Item:
    parent, _, base = name.rpartition(b"/")
    return _item(parent + b"/.wh." + base)


def _opaque(name: bytes) -> Item:
    return _item(name + b"/.wh..wh..opq")


def _link(name: bytes, target: bytes, typeflag: bytes = b"1", **fields: int | bytes) -> Item:
    return Item(name=name, typeflag=typeflag, link=target, fields=fields)


def _pax(records: dict[bytes, bytes] | Iterable[tuple[bytes, bytes]], item: Item, kind: bytes = b"x") -> Item:
    pairs = records.items() if isinstance(records, dict) else records
    return dataclasses.replace(item, records=tuple(pairs), kind_of_records=kind)


def _xattr(name: bytes, value: bytes, item: Item) -> Item:
    return _pax({b"SCHILY.xattr." + name: value}, item)


_OLD: Final = (
    _directory(b"@/d", mode=0o750, uid=7),
    _file(b"@/d/old", b"old"),
    _directory(b"@/d/inner"),
    _file(b"@/d/inner/old", b"old"),
)
"""A directory with something in it, for the upper layer to change."""
_D: Final = _directory(b"@/d", mode=0o711, uid=8)
_NEW: Final = _file(b"@/d/new", b"new")
_HOLES: Final = b"data" * 128
_LONG: Final = b"@/" + b"n" * 255
_DEEP: Final = b"@/" + b"/".join([b"d" * 60] * 30)

_DELETIONS: Final = [
    Shape("whiteouts", [*_OLD, _file(b"@/f"), _link(b"@/s", b"f", b"2"), _item(b"@/p", b"6")],
          [_whiteout(b"@/f"), _whiteout(b"@/s"), _whiteout(b"@/p"), _D, _whiteout(b"@/d/inner")]),
    Shape("whiteout-of-a-directory", _OLD, [_whiteout(b"@/d")]),
    Shape("whiteout-of-nothing", _OLD, [_whiteout(b"@/nothing"), _D, _whiteout(b"@/d/nothing")]),
    Shape("whiteout-without-its-directory", _OLD, [_whiteout(b"@/d/inner/old")], implied=[b"d", b"d/inner"]),
    Shape("whiteout-before-its-directory", _OLD, [_whiteout(b"@/d/old"), _D]),
    Shape("whiteout-before-a-new-file", _OLD, [_D, _whiteout(b"@/d/old"), _file(b"@/d/old", b"new")]),
    Shape("whiteout-after-a-new-file", _OLD, [_D, _file(b"@/d/old", b"new"), _whiteout(b"@/d/old")],
          for_overlay2=[_D, _file(b"@/d/old", b"new")]),
    Shape("whiteout-before-a-new-directory", _OLD, [_whiteout(b"@/d"), _D, _NEW],
          for_overlay2=[_D, _opaque(b"@/d"), _NEW]),
    Shape("whiteout-of-an-odd-name", [_file(b"@/\xff\n x")], [_whiteout(b"@/\xff\n x")]),
    Shape("opaque-first", _OLD, [_opaque(b"@/d"), _D, _NEW]),
    Shape("opaque-second", _OLD, [_D, _opaque(b"@/d"), _NEW]),
    Shape("opaque-in-the-middle", _OLD, [_D, _NEW, _opaque(b"@/d"), _file(b"@/d/newer")]),
    Shape("opaque-last", _OLD, [_D, _NEW, _opaque(b"@/d")]),
    Shape("opaque-and-nothing-else", _OLD, [_D, _opaque(b"@/d")]),
    Shape("opaque-without-its-directory", _OLD, [_opaque(b"@/d"), _NEW], implied=[b"d"]),
    Shape("opaque-with-an-old-name", _OLD, [_D, _opaque(b"@/d"), _file(b"@/d/old", b"new")]),
    # Under overlay2 a listing shows a whiteout in a directory that is not merged.
    Shape("opaque-and-whiteout", _OLD, [_D, _opaque(b"@/d"), _whiteout(b"@/d/old"), _NEW],
          for_overlay2=[_D, _opaque(b"@/d"), _NEW]),
    Shape("opaque-inside", _OLD, [_D, _directory(b"@/d/inner"), _opaque(b"@/d/inner"), _file(b"@/d/inner/new")]),
    Shape("opaque-over-opaque", [*_OLD, _opaque(b"@/d"), _opaque(b"@/d/inner")],
          [_D, _opaque(b"@/d"), _directory(b"@/d/inner"), _file(b"@/d/inner/new")]),
    Shape("opaque-over-nothing", [], [_directory(b"@/d"), _opaque(b"@/d"), _NEW]),
    Shape("opaque-over-a-file", [_file(b"@/d")], [_directory(b"@/d"), _opaque(b"@/d"), _NEW]),
]  # fmt: skip

_REPLACEMENTS: Final = [
    Shape("file-over-directory", _OLD, [_file(b"@/d")]),
    Shape("directory-over-file", [_file(b"@/d")], [_D, _NEW]),
    Shape("symlink-over-directory", _OLD, [_link(b"@/d", b"elsewhere", b"2")]),
    Shape("directory-over-symlink", [_directory(b"@/e"), _link(b"@/d", b"e", b"2")], [_D, _NEW]),
    Shape("directory-over-directory", _OLD, [_D, _NEW]),
    Shape("file-over-symlink", [_file(b"@/e"), _link(b"@/f", b"e", b"2")], [_file(b"@/f", b"new")]),
    Shape("fifo-over-file", [_file(b"@/f")], [_item(b"@/f", b"6")]),
    Shape("file-over-device", [_item(b"@/f", b"3", major=1, minor=3)], [_file(b"@/f")]),
    Shape("file-over-one-of-two-links", [_file(b"@/f"), _link(b"@/g", b"@/f")], [_file(b"@/g", b"new")]),
]  # fmt: skip

_LINKS: Final = [
    Shape("hard-links", [], [_file(b"@/f", mode=0o4755), _link(b"@/g", b"@/f", mode=0o4755),
                              _link(b"@/h", b"@/g", mode=0o4755)]),
    Shape("hard-links-forward", [], [_link(b"@/a", b"@/f"), _link(b"@/b", b"@/a"), _file(b"@/f", mode=0o4755)],
          for_overlay2=[_file(b"@/f", mode=0o4755), _link(b"@/a", b"@/f", mode=0o4755),
                        _link(b"@/b", b"@/a", mode=0o4755)]),
    # What the file's own entry says counts, as for GNU tar.
    Shape("hard-link-with-other-attributes", [],
          [_file(b"@/f", mode=0o600), _link(b"@/g", b"@/f", mode=0o755, uid=5, mtime=7)],
          for_overlay2=[_file(b"@/f", mode=0o600), _link(b"@/g", b"@/f", mode=0o600)]),
    Shape("hard-link-with-dots", [], [_file(b"@/f"), _link(b"@/g", b"./@/./f"), _link(b"@/h", b"/@/f")]),
    Shape("hard-links-across-directories", [],
          [_directory(b"@/d"), _file(b"@/d/f"), _directory(b"@/e"), _link(b"@/e/f", b"@/d/f")]),
    Shape("hard-link-to-a-symlink", [], [_link(b"@/s", b"nowhere", b"2"), _link(b"@/t", b"@/s")]),
    Shape("hard-link-to-a-fifo", [], [_item(b"@/p", b"6"), _link(b"@/q", b"@/p")]),
    Shape("symlinks", [], [_link(b"@/a", b"/etc/passwd", b"2"), _link(b"@/b", b"../../..", b"2"),
                           _link(b"@/c", b"\xff//./x", b"2"), _pax({b"linkpath": b"t" * 300}, _link(b"@/d", b"", b"2")),
                           Item(name=b"@/e", typeflag=b"2", fields={"magic": GNU_MAGIC}, long_link=b"k" * 300),
                           _link(b"@/owned", b"x", b"2", uid=5, gid=6, mtime=9)]),
]  # fmt: skip

_KINDS: Final = [
    Shape("devices", [], [
        _item(b"@/null", b"3", major=1, minor=3, mode=0o666),
        _item(b"@/disk", b"4", major=8, minor=1, mode=0o660, gid=6),
        _item(b"@/large", b"3", major=259, minor=70_000),
    ]),
    Shape("fifos", [], [_item(b"@/p", b"6", mode=0o620, uid=9)]),
    Shape("modes", [], [_file(b"@/none", mode=0), _file(b"@/setuid", mode=0o4755, uid=1000, gid=1000),
                        _file(b"@/setgid", mode=0o2755, gid=50), _directory(b"@/sticky", mode=0o1777),
                        _directory(b"@/closed", mode=0), _file(b"@/closed/f", mode=0o7777)]),
    Shape("empty", [], [_file(b"@/f", b""), _directory(b"@/d")]),
    Shape("old-format", [], [_item(b"@/f", b"\0", b"v7")]),
    Shape("large", [], [_file(b"@/f", bytes(range(256)) * 4_000)]),
]  # fmt: skip

_ATTRIBUTES: Final = [
    Shape("xattrs", [], [
        _xattr(b"user.a", b"1\n=2\0\xff", _file(b"@/f")),
        _xattr(b"user.a", b"directory", _directory(b"@/d")),
        _pax({b"SCHILY.xattr.user.x": b"", b"SCHILY.xattr.user.y.z": b"y" * 3000}, _file(b"@/two")),
    ]),
    Shape("capability", [], [_xattr(b"security.capability", CAPABILITY, _file(b"@/f", mode=0o755, uid=3))]),
    Shape("overlays-own-xattrs", _OLD,
          [_xattr(b"trusted.overlay.opaque", b"y", _D), _NEW,
           _xattr(b"trusted.overlay.redirect", b"/etc", _directory(b"@/e"))],
          for_overlay2=[_D, _NEW, _directory(b"@/e")]),
    Shape("ids", [], [_file(b"@/7", uid=0o7777777, gid=0o7777777),
                      _pax({b"uid": b"2097152", b"gid": b"4294967294"}, _file(b"@/pax")),
                      _item(b"@/binary", magic=GNU_MAGIC,
                            uid=b"\x80\0\0\0\xff\xff\xff\xfe", gid=b"\x80\0\0\0\0\x20\0\0")]),
    Shape("times", [], [_pax({b"mtime": b"1500000000.123456789"}, _file(b"@/fraction")),
                        _pax({b"mtime": b"1500000000.987654321"}, _directory(b"@/d")), _NEW,
                        _pax({b"mtime": b"1500000000.5"}, _link(b"@/s", b"x", b"2")),
                        _pax({b"mtime": b"0"}, _file(b"@/epoch")), _pax({b"mtime": b"8589934592"}, _file(b"@/far"))]),
    Shape("unknown-records", [], [_pax({b"comment": b"x", b"LIBARCHIVE.creationtime": b"5", b"atime": b"3",
                                        b"ctime": b"4", b"uname": b"daemon", b"VENDOR.key": b"y"}, _file(b"@/f"))]),
    Shape("global-comment", [], [_pax({b"comment": b"of git"}, _file(b"@/f"), b"g")]),
]  # fmt: skip

_NAMES: Final = [
    Shape("long-names", [], [_pax({b"path": _LONG}, _file(b"@/short")), _file(b"@/after"),
                             Item(name=b"@/cut", fields={"magic": GNU_MAGIC}, long_name=b"@/" + b"g" * 200)]),
    Shape("deep", [], [_pax({b"path": _DEEP + b"/f"}, _file(b"@/short"))],
          implied=[b"/".join([b"d" * 60] * depth) for depth in range(1, 31)]),
    Shape("prefix", [], [_file(b"d/f", prefix=b"@")], implied=[b"d"]),
    Shape("odd-names", [], [_file(b"@/\xff\xfe"), _file("@/\u00e9\U0001f600".encode()), _file(b"@/ sp ace "),
                            _file(b"@/-x"), _file(b"@/..."), _file(b"@/x\ny"), _file(b"@/back\\slash"),
                            _file(b"@/wh.x"),
                            _pax({b"path": b"@/" + b"\xfe" * 150}, _file(b"@/long"))]),
    Shape("dots-and-slashes", [], [_file(b"./@/a"), _file(b"/@/b"), _file(b"@//c"), _file(b"@/./d"),
                                   _directory(b"./@/e/."), _directory(b"@/g/")]),
    Shape("implied-parents", [], [_file(b"@/a/b/c"), _directory(b"@/x/y", mode=0o700), _link(b"@/l/s", b"t", b"2")],
          implied=[b"a", b"a/b", b"x", b"l"]),
    Shape("implied-over-described", _OLD, [_file(b"@/d/inner/new")], implied=[b"d", b"d/inner"]),
    Shape("described-after-its-content", [], [_NEW, _D]),
]  # fmt: skip

SPARSE: Final = [
    Shape("sparse-gnu", [], [
        _item(b"@/f", b"S", _HOLES, magic=GNU_MAGIC,
              prefix=bytes(41) + octal(4096, 12) + octal(512, 12) + bytes(24 * 3 + 1) + octal(1 << 20, 12)),
    ], for_overlay2=[_file(b"@/f", bytes(4096) + _HOLES + bytes((1 << 20) - 4096 - len(_HOLES)))]),
    Shape("sparse-pax-0.1", [], [
        _pax({b"GNU.sparse.name": b"@/f", b"GNU.sparse.size": b"1000000", b"GNU.sparse.numblocks": b"2",
              b"GNU.sparse.map": b"0,256,8192,256"}, _file(b"@/x", _HOLES))]),
    Shape("sparse-pax-1.0", [], [
        _pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"@/f",
              b"GNU.sparse.realsize": b"1000000"}, _file(b"@/x", b"1\n4096\n512\n".ljust(512, b"\0") + _HOLES))]),
    Shape("sparse-and-nothing-else", [], [
        _pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"@/f",
              b"GNU.sparse.realsize": b"1000000"}, _file(b"@/x", b"0\n".ljust(512, b"\0")))]),
]  # fmt: skip

SHAPES: Final = [*_DELETIONS, *_REPLACEMENTS, *_LINKS, *_KINDS, *_ATTRIBUTES, *_NAMES]
"""Shapes that the engine can save again; it cannot save sparse files, under no storage driver."""
