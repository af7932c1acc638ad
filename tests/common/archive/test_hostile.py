"""Names and links that lead outside and are taken: they lead nowhere. What is refused is in tests/hostile."""

import io
import os
from pathlib import Path

import pytest

from harness.trees import differences, read_directory
from services.common.archive.limits import ArchiveLimits
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.unpack import unpack
from tests.hostile.archives import link
from tests.support.tars import archive, member, pax


@pytest.fixture
def canary(tree: Path) -> Path:
    """A directory next to the tree that is not the archive's."""
    canary = tree.parent / "canary"
    canary.mkdir(mode=0o751)
    (canary / "victim").write_bytes(b"untouched")
    os.utime(canary / "victim", (5, 5))
    os.utime(canary, (6, 6))
    return canary


@pytest.mark.parametrize("name", [b"/@/new", b"//@/new", b"/@/victim"])
def test_an_absolute_name_lies_inside(tree: Path, canary: Path, name: bytes) -> None:
    before = read_directory(canary)
    name = name.replace(b"/@", os.fsencode(canary))
    content = archive(pax({b"path": name}), member(b"f", b"inside"))
    unpack(io.BytesIO(content), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
    assert differences(before, read_directory(canary)) == []
    assert Path(f"{tree}/{os.fsdecode(name)}").read_bytes() == b"inside"


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../../../../etc", b"/proc/self/root", b"..", b"//x/../y/."])
def test_a_symlink_that_points_outside_is_kept_and_not_followed(tree: Path, target: bytes) -> None:
    content = archive(link(b"l", target), pax({b"mtime": b"5"}), member(b"g", b"", mode=0o777))
    unpack(io.BytesIO(content), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
    assert os.readlink(os.fsencode(tree / "l")) == target


def test_a_hard_link_to_the_outside_is_no_way_to_overwrite(tree: Path, canary: Path) -> None:
    before = read_directory(canary)
    content = archive(link(b"l", os.fsencode(canary / "victim"), b"1"), member(b"l", b"overwritten", uid=99))
    unpack(io.BytesIO(content), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
    assert differences(before, read_directory(canary)) == []
    assert (tree / "l").read_bytes() == b"overwritten"


def test_attributes_never_go_through_a_symlink(tree: Path, canary: Path) -> None:
    before = read_directory(canary)
    victim = os.fsencode(canary / "victim")
    content = archive(
        pax({b"linkpath": victim, b"mtime": b"1", b"SCHILY.xattr.user.a": b"b"}),
        member(b"l", typeflag=b"2", mode=0o4777, uid=99, gid=99),
        link(b"m", b"l", b"1"),
        pax({b"linkpath": os.fsencode(canary)}),
        member(b"d", typeflag=b"2", mode=0o777, uid=99),
    )
    unpack(io.BytesIO(content), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
    assert differences(before, read_directory(canary)) == []
    assert (tree / "l").stat(follow_symlinks=False).st_uid == 99
