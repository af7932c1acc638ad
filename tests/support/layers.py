"""Layers for property tests: trees of every kind of file, and the archives that hold them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import strategies as st

from tests.support.tars import archive, member, pax

__all__ = ["Directory", "Leaf", "archive_of", "layers", "members_of"]

CAPABILITY: Final = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
_NANO: Final = 10**9
_OCTAL_7: Final = 0o7777777

NAMES: Final = [
    b"a",
    b"b",
    b"c.d",
    b"\xff\xfe",
    "\u00e9\U0001f600".encode(),
    b"n" * 130,
    b" sp ace",
    b"-x",
    b"...",
    b"x\ny",
]


@dataclass(frozen=True)
class Leaf:
    """Anything but a directory."""

    typeflag: bytes
    attributes: dict[str, Any]
    content: bytes = b""
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    choice: int = 0
    """Which of the files before it a hard link goes to."""


@dataclass(frozen=True)
class Directory:
    """A directory; as the root its attributes do not count."""

    attributes: dict[str, Any]
    children: dict[bytes, "Leaf | Directory"]
    deleted: frozenset[bytes] = frozenset()
    """Names that the layer deletes here."""
    opaque: bool = False
    implied: bool = False
    """Whether the archive has no entry for it."""
    typeflag: bytes = field(default=b"5", init=False)


# What ext4 can hold from below, which drops fractions of its very first second, and Go's nanoseconds of 64 bits from
# above.
_times = st.one_of(st.integers(0, 2**31), st.integers(1 - 2**31, 9 * 10**9)).flatmap(
    lambda seconds: st.sampled_from([0, 1, 123_456_789, 999_999_999, 500_000_000]).map(
        lambda fraction: seconds * _NANO + fraction
    )
)
_ids = st.sampled_from([0, 1, 1000, _OCTAL_7, _OCTAL_7 + 1, 3_000_000, 2**32 - 2])
_xattrs = st.dictionaries(
    st.sampled_from([b"user.a", b"user.\xc3\xbc", b"user.x.y"]), st.binary(min_size=1, max_size=40)
)


def _attributes(*, xattrs: bool) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "mode": st.one_of(st.sampled_from([0o644, 0o755, 0, 0o4755, 0o1777]), st.integers(0, 0o7777)),
            "uid": _ids,
            "gid": _ids,
            "mtime": _times,
            "xattrs": _xattrs if xattrs else st.just({}),
        }
    )


_contents = st.one_of(st.binary(max_size=100), st.sampled_from([0, 511, 512, 513, 5000]).map(lambda size: b"z" * size))
_targets = st.sampled_from([b"a", b"/etc/passwd", b"../..", b"\xff//./x", b"t" * 150])
_files = st.builds(Leaf, st.just(b"0"), _attributes(xattrs=True), content=_contents)
_capable = _files.map(
    lambda leaf: Leaf(
        b"0", leaf.attributes | {"xattrs": leaf.attributes["xattrs"] | {b"security.capability": CAPABILITY}}, b"#!"
    )
)
_symlinks = st.builds(Leaf, st.just(b"2"), _attributes(xattrs=False), target=_targets)
_devices = st.builds(
    Leaf,
    st.sampled_from([b"3", b"4"]),
    _attributes(xattrs=False),
    device=st.sampled_from([(1, 3), (0, 1), (259, 70_000), (4095, (1 << 20) - 1)]),
)
_fifos = st.builds(Leaf, st.just(b"6"), _attributes(xattrs=False))
_links = st.builds(Leaf, st.just(b"1"), st.just({}), choice=st.integers(0, 1000))
_leaves = st.one_of(_files, _files, _files, _capable, _symlinks, _devices, _fifos, _links, _links)


def layers(
    *, deletions: bool, missing_parents: bool = False, names: Sequence[bytes] = NAMES
) -> st.SearchStrategy[Directory]:
    """Generate the root of a layer.

    Parameters
    ----------
    deletions
        Whether there may be whiteouts and opaque directories.
    missing_parents
        Whether the archive may leave out entries of directories.
    names
        What files and directories are called.
    """
    deleted = st.frozensets(st.sampled_from(names), max_size=2) if deletions else st.just(frozenset())
    opaque = st.booleans() if deletions else st.just(value=False)
    implied = st.booleans() if missing_parents else st.just(value=False)

    def directory(children: st.SearchStrategy[Leaf | Directory]) -> st.SearchStrategy[Directory]:
        return st.builds(
            Directory,
            _attributes(xattrs=True),
            st.dictionaries(st.sampled_from(names), children, max_size=4),
            deleted,
            opaque,
            implied,
        )

    nodes = st.recursive(_leaves, directory, max_leaves=12)
    return st.builds(Directory, st.just({}), st.dictionaries(st.sampled_from(names), nodes, max_size=5), deleted)


def archive_of(root: Directory) -> bytes:
    """Return the archive of a layer."""
    return archive(*members_of(root))


def members_of(root: Directory) -> list[bytes]:
    """Return a layer's entries, each with its extended header, a directory before what is in it."""
    linkable: list[tuple[bytes, Leaf]] = []
    return list(_inside(root, b"", linkable))


def _inside(directory: Directory, prefix: bytes, linkable: list[tuple[bytes, Leaf]]) -> Iterator[bytes]:
    for name in sorted(directory.deleted - directory.children.keys()):
        yield _entry(prefix + b".wh." + name, b"0", {})
    if directory.opaque:
        yield _entry(prefix + b".wh..wh..opq", b"0", {})
    for name, node in sorted(directory.children.items()):
        path = prefix + name
        if isinstance(node, Directory):
            if not node.implied:
                yield _entry(path + b"/", b"5", node.attributes)
            yield from _inside(node, path + b"/", linkable)
        elif node.typeflag != b"1":
            linkable.append((path, node))
            yield _entry(path, node.typeflag, node.attributes, node.content, node.target, node.device)
        elif linkable:
            # With the attributes of its file, as every writer has it: some readers take them for the file's.
            target, file = linkable[node.choice % len(linkable)]
            yield _entry(path, b"1", file.attributes, target=target)


def _entry(
    name: bytes,
    typeflag: bytes,
    attributes: dict[str, Any],
    content: bytes = b"",
    target: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    mtime, uid, gid = (attributes.get(key, 0) for key in ("mtime", "uid", "gid"))
    sign, (seconds, fraction) = "-" if mtime < 0 else "", divmod(abs(mtime), _NANO)
    records = {b"mtime": f"{sign}{seconds}.{fraction:09}".encode()}
    if len(name) > 100:
        records[b"path"] = name
    if len(target) > 100:
        records[b"linkpath"] = target
    records |= {key: b"%d" % value for key, value in ((b"uid", uid), (b"gid", gid)) if value > _OCTAL_7}
    records |= {b"SCHILY.xattr." + key: value for key, value in attributes.get("xattrs", {}).items()}
    return pax(records) + member(
        name[:100],
        content,
        typeflag,
        mode=attributes.get("mode", 0),
        uid=min(uid, _OCTAL_7),
        gid=min(gid, _OCTAL_7),
        link=target[:100],
        major=device[0],
        minor=device[1],
    )
