"""Whiteouts and opaque directories: what they say, and how a tree says it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.archive.model import LayerContent
from services.common.archive.ondisk import ListedDeletions
from tests.support.tars import archive, member

Put = Callable[..., LayerContent]


def test_deletions_become_devices_and_attributes(tree: Path, put: Put) -> None:
    content = put(archive(member(b"d/.wh.gone", b""), member(b"o/.wh..wh..opq", b""), member(b"o/kept", b"k")))
    device = os.lstat(tree / "d/gone")
    assert stat.S_ISCHR(device.st_mode)
    assert device.st_rdev == 0
    assert os.getxattr(tree / "o", "trusted.overlay.opaque") == b"y"
    assert os.listxattr(tree / "d") == []
    assert (content.whiteouts, content.opaque) == ((b"d/gone",), (b"o",))
    assert (tree / "o/kept").read_bytes() == b"k"


def test_deletions_listed_only_leave_no_trace_but_their_parents(tree: Path, put: Put) -> None:
    content = put(archive(member(b"d/.wh.gone", b""), member(b"o/.wh..wh..opq", b"")), deletions=ListedDeletions())
    assert sorted(path.name for path in tree.rglob("*")) == ["d", "o"]
    assert os.listxattr(tree / "o") == []
    assert (content.whiteouts, content.opaque) == ((b"d/gone",), (b"o",))


@pytest.mark.parametrize("order", [1, -1])
def test_deletions_of_a_directory_that_the_layer_has_make_it_opaque(tree: Path, put: Put, order: int) -> None:
    parts = [member(b".wh.x", b""), member(b"x/", b"", b"5") + member(b"x/f", b"1")][::order]
    content = put(archive(*parts))
    assert (content.whiteouts, content.opaque) == ((), (b"x",))
    assert os.getxattr(tree / "x", "trusted.overlay.opaque") == b"y"
    assert (tree / "x/f").read_bytes() == b"1"


@pytest.mark.parametrize("order", [1, -1])
def test_deletions_of_a_file_that_the_layer_has_say_nothing(tree: Path, put: Put, order: int) -> None:
    content = put(archive(*[member(b".wh.x", b""), member(b"x", b"1")][::order]))
    assert (content.whiteouts, content.opaque) == ((), ())
    assert (tree / "x").read_bytes() == b"1"


@pytest.mark.parametrize("order", [1, -1])
def test_deletions_of_a_whole_directory_spare_the_layers_own_files_and_need_no_others(
    tree: Path, put: Put, order: int
) -> None:
    parts = [
        member(b"o/.wh..wh..opq", b""),
        member(b"o/f", b"1"),
        member(b"o/d/g", b"2"),
        member(b"o/.wh.h", b""),
        member(b"o/d/.wh.h", b""),
    ][::order]
    content = put(archive(*parts))
    assert ((tree / "o/f").read_bytes(), (tree / "o/d/g").read_bytes()) == (b"1", b"2")
    assert (content.whiteouts, content.opaque) == ((), (b"o",))


def test_deletions_of_the_root(tree: Path, put: Put) -> None:
    content = put(archive(member(b".wh..wh..opq", b""), member(b"f", b"")))
    assert content.opaque == (b"",)
    assert os.getxattr(tree, "trusted.overlay.opaque") == b"y"


def test_deletions_are_known_by_name_whatever_their_type(tree: Path, put: Put) -> None:
    content = put(
        archive(
            member(b".wh.a", typeflag=b"1", link=b".wh..wh.aufs"),
            member(b".wh.b", typeflag=b"2", link=b"x"),
            member(b".wh.c", b"", b"5"),
            member(b".wh.d", b"content is ignored"),
            member(b"after", b"1"),
        )
    )
    assert content.whiteouts == (b"a", b"b", b"c", b"d")
    assert (tree / "after").read_bytes() == b"1"


def test_deletions_below_what_a_later_entry_has_replaced_are_done(tree: Path, put: Put) -> None:
    content = put(
        archive(member(b"d/.wh.x", b""), member(b"e/.wh..wh..opq", b""), member(b"d", b""), member(b"e", b""))
    )
    assert (content.whiteouts, content.opaque) == ((), ())
    assert sorted(path.name for path in tree.iterdir()) == ["d", "e"]


def test_names_that_merely_resemble_a_deletion(tree: Path, put: Put) -> None:
    content = put(archive(member(b"a.wh.b", b""), member(b".wh", b""), member(b"x.wh..wh..opq", b"")))
    assert sorted(path.name for path in tree.iterdir()) == [".wh", "a.wh.b", "x.wh..wh..opq"]
    assert (content.whiteouts, content.opaque) == ((), ())


def test_deletions_of_names_that_begin_with_dots(put: Put) -> None:
    content = put(archive(member(b".wh..x", b""), member(b".wh....", b"")))
    assert content.whiteouts == (b"...", b".x")[::1]


def test_aufs_files_are_skipped_with_a_note(tree: Path, put: Put) -> None:
    content = put(
        archive(
            member(b".wh..wh.plnk/", b"", b"5"),
            member(b".wh..wh.plnk/1.2", b"x"),
            member(b".wh..wh.aufs", b""),
            member(b"f", b"1"),
        )
    )
    assert [path.name for path in tree.iterdir()] == ["f"]
    assert len(content.notes) == 3
    assert "AUFS" in content.notes[0]


def test_a_device_that_looks_like_a_deletion_is_one(tree: Path, put: Put) -> None:
    content = put(archive(member(b"d/x", b"1"), member(b"d/x", typeflag=b"3")), deletions=ListedDeletions())
    assert content.whiteouts == (b"d/x",)
    assert list((tree / "d").iterdir()) == []
    assert "deletion" in content.notes[0]
