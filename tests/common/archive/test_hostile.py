"""Archives that want to do harm: what each is told, and that nothing came to be outside the tree."""

import io
import os
from pathlib import Path
from typing import Final

import pytest

from harness.trees import differences, read_directory
from services.common.archive.limits import ArchiveLimits
from services.common.archive.ondisk import ListedDeletions, OverlayDeletions
from services.common.archive.survey import survey
from services.common.archive.unpack import unpack
from tests.support.hostile import CASES, Case, link
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


@pytest.mark.parametrize("deletions", [OverlayDeletions(), ListedDeletions()], ids=["overlay", "listed"])
@pytest.mark.parametrize("hostile", CASES, ids=[hostile.name for hostile in CASES])
def test_is_told_what_is_wrong_and_leaves_nothing_outside(
    tree: Path, canary: Path, hostile: Case, deletions: OverlayDeletions | ListedDeletions
) -> None:
    content = hostile.build(os.fsencode(canary))
    before = read_directory(canary)
    neighbours = sorted(tree.parent.iterdir())
    with pytest.raises(hostile.error) as unpacked:
        unpack(io.BytesIO(content), tree, deletions=deletions, limits=hostile.limits)
    assert type(unpacked.value) is hostile.error
    assert hostile.says in str(unpacked.value)
    assert str(unpacked.value).isascii()
    assert str(unpacked.value).isprintable()
    assert differences(before, read_directory(canary)) == []
    assert sorted(tree.parent.iterdir()) == neighbours


# The kernel alone judges an attribute's value.
SURVEYED: Final = [hostile for hostile in CASES if hostile.name != "capability-that-is-none"]


@pytest.mark.parametrize("hostile", SURVEYED, ids=[hostile.name for hostile in SURVEYED])
def test_is_told_the_same_by_a_survey(canary: Path, hostile: Case) -> None:
    with pytest.raises(hostile.error) as surveyed:
        survey(io.BytesIO(hostile.build(os.fsencode(canary))), limits=hostile.limits)
    assert type(surveyed.value) is hostile.error
    assert hostile.says in str(surveyed.value)


def test_the_table_is_as_long_as_it_should_be() -> None:
    names = [hostile.name for hostile in CASES]
    assert len(set(names)) == len(names) >= 40


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
