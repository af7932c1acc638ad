"""Stacks of layers as one tree, held against the kernel's own overlay of them."""

import dataclasses
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.trees import Entry, Exclusions, Tree, differences, read_directory
from services.common.archive.ondisk import is_opaque, is_whiteout
from services.common.threads import Stop
from services.repository.directory.stacking import StackedLayer, stack
from services.repository.flat.differences import Difference, DifferenceReport, Differences
from services.repository.flat.modes import Modes
from tests.support.layer_stacks import by_umoci, overlay_of, stacks, unpack_layers
from tests.support.layers import CAPABILITY
from tests.support.tars import archive, member, pax

ROOT: Final = Exclusions(times=frozenset({b"."}))
Reports = dict[Difference, DifferenceReport]


def layer_of(tree: Path) -> StackedLayer:
    """Describe a layer that is unpacked as overlayfs has it: its sidecar would say the same."""
    whiteouts: list[bytes] = []
    opaque: list[bytes] = []
    for directory, _, files in os.walk(os.fsencode(tree)):
        path = os.path.relpath(directory, os.fsencode(tree))
        path = b"" if path == b"." else path
        if is_opaque(directory):
            opaque.append(path)
        names = [name for name in files if is_whiteout(os.lstat(os.path.join(directory, name)))]
        whiteouts += [os.path.join(path, name) for name in names]
    return StackedLayer(tree=tree, whiteouts=whiteouts, opaque=opaque)


def stacked(trees: list[Path], target: Path, *, others_read: bool = False) -> tuple[Tree, Reports]:
    target.mkdir()
    found = Differences()
    layers = [layer_of(tree) for tree in trees]
    count = stack(target, layers, modes=Modes(others_read), differences=found, stop=Stop())
    tree = read_directory(target, exclusions=ROOT)
    assert count == len(tree) - 1
    return tree, dict(found.report())


def mended(tree: Tree, *, others_read: bool = False) -> Tree:
    """Change the permissions of what an overlay shows to those of a flat image."""

    def mend(entry: Entry) -> Entry:
        modes = Modes(others_read)
        change = {"directory": modes.of_directory, "file": modes.of_file}.get(entry.kind)
        return entry if change is None else dataclasses.replace(entry, mode=change(entry.mode))

    return {path: mend(entry) for path, entry in tree.items()}


@contextmanager
def workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@given(archives=stacks(), others_read=st.booleans())
@settings(max_examples=25)
def test_a_tree_of_layers_is_what_the_kernels_overlay_shows(archives: list[bytes], *, others_read: bool) -> None:
    with workspace() as directory:
        trees = unpack_layers(archives, directory)
        before = [read_directory(tree) for tree in trees]
        overlay = mended(overlay_of(trees, directory), others_read=others_read)
        ours, _ = stacked(trees, directory / "ours", others_read=others_read)
        assert differences(ours, overlay, names=("ours", "the overlay's")) == []
        assert [read_directory(tree) for tree in trees] == before


def _stack_of(directory: Path, *archives: bytes) -> tuple[Tree, Reports]:
    return stacked(unpack_layers(archives, directory), directory / "ours")


# Where an overlay and one tree differ


def test_a_directory_without_an_entry_hides_a_link_below_and_is_reported(tmp_path: Path) -> None:
    base = archive(member(b"usr/lib/y", b"y"), member(b"lib", link=b"usr/lib", typeflag=b"2"))
    top = archive(member(b"lib/x", b"x"))
    tree, report = _stack_of(tmp_path, base, top)
    assert tree[b"lib"].kind == "directory"
    assert tree.keys() == {b".", b"lib", b"lib/x", b"usr", b"usr/lib", b"usr/lib/y"}
    assert report == {Difference.HIDDEN_LINK: DifferenceReport(count=1, first=("'lib'",))}
    umocis = by_umoci([base, top], tmp_path)
    assert umocis[b"lib"].kind == "symlink"
    assert b"usr/lib/x" in umocis


def test_a_directory_with_an_entry_replaces_a_link_for_both(tmp_path: Path) -> None:
    base = archive(member(b"usr/lib/y", b"y"), member(b"lib", link=b"usr/lib", typeflag=b"2"))
    top = archive(member(b"lib", typeflag=b"5", mode=0o755, mtime=1), member(b"lib/x", b"x"))
    tree, report = _stack_of(tmp_path, base, top)
    assert report == {}
    assert tree.keys() == by_umoci([base, top], tmp_path).keys()


def test_a_directory_without_an_entry_loses_its_attributes_and_is_reported(tmp_path: Path) -> None:
    base = archive(member(b"root", typeflag=b"5", mode=0o700, uid=7), member(b"opt", typeflag=b"5", mode=0o755))
    middle = archive(member(b"root/a", b"a"))
    top = archive(member(b"root/b", b"b"), member(b"opt/x", b"x"))
    tree, report = _stack_of(tmp_path, base, middle, top)
    assert (tree[b"root"].mode, tree[b"root"].uid) == (0o755, 0)
    assert report == {Difference.IMPLIED_DIRECTORY: DifferenceReport(count=1, first=("'root'",))}
    umocis = by_umoci([base, middle, top], tmp_path)
    assert (umocis[b"root"].mode, umocis[b"root"].uid) == (0o700, 7)


def test_a_file_of_which_another_name_is_replaced_stands_alone(tmp_path: Path) -> None:
    base = archive(member(b"a", b"old"), member(b"b", typeflag=b"1", link=b"a"), member(b"c", typeflag=b"1", link=b"a"))
    top = archive(member(b"a", b"new"))
    tree, report = _stack_of(tmp_path, base, top)
    assert report == {}
    assert (tree[b"a"].links, tree[b"b"].links) == ((), (b"b", b"c"))
    assert tree[b"a"].sha256 != tree[b"b"].sha256
    tops = archive(member(b"c", b"new"))
    (tmp_path / "two").mkdir()
    tree, _ = _stack_of(tmp_path / "two", base, top, tops)
    assert {tree[name].links for name in (b"a", b"b", b"c")} == {()}


# Where both agree


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([[member(b"d/x", b"")], [member(b"d", b"file")], [member(b"d/y", b"")]], {b"d", b"d/y"}),
        ([[member(b"d", b"file")], [member(b"d/y", b"")]], {b"d", b"d/y"}),
        ([[member(b"d/x", b"")], [member(b".wh.d", b"")], [member(b"d/y", b"")]], {b"d", b"d/y"}),
        ([[member(b"d/x", b"")], [member(b"d/.wh..wh..opq", b""), member(b"d/y", b"")]], {b"d", b"d/y"}),
        ([[member(b"d/x", b"")], [member(b"d/y", b""), member(b"d/.wh..wh..opq", b"")]], {b"d", b"d/y"}),
        ([[member(b"d/x", b"")], [member(b".wh..wh..opq", b""), member(b"y", b"")]], {b"y"}),
        ([[member(b"./d/x", b"")], [member(b"/d/.wh.x", b""), member(b"d/.wh.absent", b"")]], {b"d"}),
        ([[member(b"x", b"")], [member(b".wh.x", b"")], [member(b"x", b"")]], {b"x"}),
        ([[member(b"x", b"")], [member(b".wh..wh.plnk/1", b""), member(b".wh..wh.aufs", b"")]], {b"x"}),
        (
            [[member(b"d/e/x", b"")], [member(b"d/.wh.e", b"")], [member(b"d/e/y", b"")]],
            {b"d", b"d/e", b"d/e/y"},
        ),
    ],
)
def test_deletions_and_changes_of_type(tmp_path: Path, layers: list[list[bytes]], wanted: set[bytes]) -> None:
    tree, report = _stack_of(tmp_path, *(archive(*members) for members in layers))
    assert tree.keys() - {b"."} == wanted
    assert report == {}


# What is made of files


def test_a_file_is_no_copy_unless_its_mode_has_to_change(tmp_path: Path) -> None:
    base = archive(
        member(b"same", b"s", mode=0o4755),
        pax({b"SCHILY.xattr.security.capability": CAPABILITY}),
        member(b"closed", b"c" * 9000, mode=0o4011, uid=5, mtime=9),
        member(b"again", typeflag=b"1", link=b"closed", mode=0o4011),
        member(b"null", typeflag=b"3", major=1, minor=3, mode=0o600),
    )
    tree, _ = _stack_of(tmp_path, base)

    def inode(place: str, name: str) -> int:
        return (tmp_path / place / name).lstat().st_ino

    for name in ("same", "null"):
        assert inode("ours", name) == inode("layer-0", name)
    assert inode("ours", "closed") == inode("ours", "again") != inode("layer-0", "closed")
    closed = tree[b"closed"]
    assert (closed.mode, closed.uid, closed.mtime) == (0o4411, 5, 9 * 10**9)
    assert closed.xattrs == {"security.capability": CAPABILITY}
    assert stat.S_IMODE((tmp_path / "layer-0/closed").lstat().st_mode) == 0o4011


def test_the_holes_of_a_copy_are_holes(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    file = tmp_path / "layer/sparse"
    with file.open("wb") as sparse:
        for position in (1 << 20, 8 << 30):
            sparse.seek(position)
            sparse.write(b"data")
        sparse.truncate(16 << 30)
    file.chmod(0)
    (tmp_path / "ours").mkdir()
    layer = StackedLayer(tree=tmp_path / "layer", whiteouts=(), opaque=())
    stack(tmp_path / "ours", [layer], modes=Modes(others_read=False), differences=Differences(), stop=Stop())
    copy = tmp_path / "ours/sparse"
    status = copy.stat()
    assert (status.st_size, stat.S_IMODE(status.st_mode)) == (16 << 30, 0o400)
    assert status.st_blocks == file.stat().st_blocks
    with copy.open("rb") as content:
        for position in (1 << 20, 8 << 30):
            content.seek(position)
            assert content.read(5) == b"data\0"


def test_names_that_cvmfs_would_act_on_are_left_out_and_reported(tmp_path: Path) -> None:
    (tmp_path / "layer/d/.cvmfscatalog").mkdir(parents=True)
    (tmp_path / "layer/.cvmfsdirtab").touch()
    (tmp_path / "layer/d/.cvmfscatalog/x").touch()
    tree, report = stacked([tmp_path / "layer"], tmp_path / "ours")
    assert tree.keys() == {b".", b"d"}
    assert report == {Difference.DROPPED_NAME: DifferenceReport(count=2, first=("'.cvmfsdirtab'", "'d/.cvmfscatalog'"))}


def test_links_that_clients_expand_are_reported_if_they_are_shown(tmp_path: Path) -> None:
    base = archive(
        member(b"shown", link=b"$(HOME)/x", typeflag=b"2"), member(b"hidden", link=b"$(HOME)", typeflag=b"2")
    )
    _, report = _stack_of(tmp_path, base, archive(member(b"hidden", b"")))
    assert report == {Difference.VARIANT_LINK: DifferenceReport(count=1, first=("'shown'",))}


def test_work_that_nobody_waits_for_ends(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    (tmp_path / "ours").mkdir()
    stop = Stop()
    stop.set()
    layer = StackedLayer(tree=tmp_path / "layer", whiteouts=(), opaque=())
    with pytest.raises(InterruptedError):
        stack(tmp_path / "ours", [layer], modes=Modes(others_read=False), differences=Differences(), stop=stop)
