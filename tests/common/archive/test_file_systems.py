"""File systems that cannot hold a layer: what is lost harmlessly is noted, everything else is an error."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.common.archive.errors import TreeWriteError, UnsupportedTreeError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.pack import pack
from services.common.archive.tarwriter import TarWriter
from services.common.archive.unpack import unpack
from tests.support.mounts import mount, unmount_all_below
from tests.support.tars import archive, member, pax

CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)

Mounted = Callable[..., Path]


@pytest.fixture
def mounted(tree: Path) -> Iterator[Mounted]:
    """Mount a file system for the tree."""

    def mounted(kind: str, options: str) -> Path:
        mount("-t", kind, "-o", options, kind, tree)
        return tree

    yield mounted
    unmount_all_below(tree.parent)


def put(tree: Path, *parts: bytes) -> LayerContent:
    return unpack(io.BytesIO(archive(*parts)), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())


@pytest.mark.parametrize(
    ("part", "path"),
    [
        (member(b"new", b""), "new"),
        (member(b"new/", b"", b"5"), "new"),
        (member(b"new/below", b""), "new"),
        (member(b"new", typeflag=b"2", link=b"x"), "new"),
        (member(b"new", typeflag=b"6"), "new"),
        (member(b"new", typeflag=b"3", major=1, minor=3), "new"),
        (member(b".wh.new", b""), "new"),
        (member(b"a", b"x" * 300_000), "a"),
    ],
)
def test_a_full_one(mounted: Mounted, part: bytes, path: str) -> None:
    # Two inodes: the root's and one more; a quarter of a megabyte of data.
    tree = mounted("tmpfs", "size=256k,nr_inodes=2")
    first = member(b"a", b"")
    with pytest.raises(TreeWriteError, match=f"'{path}' cannot be made: No space left on device") as caught:
        put(tree, first, part)
    assert isinstance(caught.value.__cause__, OSError)


def test_one_without_attributes_of_users(mounted: Mounted) -> None:
    tree = mounted("ramfs", "mode=755")
    layer = put(tree, pax({b"SCHILY.xattr.user.a": b"1"}), member(b"f", b"x"))
    assert layer.notes == ("'f': the file system cannot hold the attribute 'user.a'",)
    assert (tree / "f").read_bytes() == b"x"
    assert pack(tree, io.BytesIO()).entries == 1


def test_one_without_capabilities(mounted: Mounted) -> None:
    tree = mounted("ramfs", "mode=755")
    with pytest.raises(TreeWriteError, match="'f' cannot be made: Operation not supported"):
        put(tree, pax({b"SCHILY.xattr.security.capability": CAPABILITY}), member(b"f", b"x"))


def test_one_without_opaque_directories(mounted: Mounted) -> None:
    tree = mounted("ramfs", "mode=755")
    with pytest.raises(TreeWriteError, match="'d' cannot be made: Operation not supported"):
        put(tree, member(b"d/.wh..wh..opq"))


def test_attributes_that_are_too_large_together(tree: Path) -> None:
    # ext4 keeps them in one block of 4 KiB.
    with pytest.raises(TreeWriteError, match="'f' cannot be made: No space left on device"):
        put(tree, pax({b"SCHILY.xattr.user.a": b"x" * 5000}), member(b"f", b"x"))


def test_attributes_that_no_reader_would_take() -> None:
    writer = TarWriter(io.BytesIO())
    xattrs = {b"user.%d" % number: bytes(65_536) for number in range(17)}
    with pytest.raises(UnsupportedTreeError, match="'f' has a path, a link's target and extended attributes of 1114"):
        writer.entry(b"f", b"0", mode=0o644, xattrs=xattrs)


def test_remarks_are_bounded(tree: Path) -> None:
    layer = put(tree, *[pax({b"SCHILY.xattr.trusted.%d" % n: b""}) + member(b"%d" % n) for n in range(300)])
    assert len(layer.notes) == 201
    assert layer.notes[-1] == "and 100 more of this kind"


def test_a_long_name_is_cut_in_a_remark(tree: Path) -> None:
    name = b"/".join([b"\xff" * 200] * 4)
    layer = put(tree, pax({b"path": name, b"SCHILY.xattr.trusted.a": b""}), member(b"short"))
    assert layer.notes[0].startswith(r"'\xff\xff")
    assert "... (803 bytes): the attribute" in layer.notes[0]
    assert os.path.lexists(os.path.join(os.fsencode(tree), name))
