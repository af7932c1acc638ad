"""Layers merged into one, against the kernel's own union of them."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.trees import differences, read_directory
from services.node.merge import merged
from services.node.mounts import OverlaySource, mount_overlay
from tests.support.deep import deepen, depth_of, innermost, removed_afterwards
from tests.support.mounts import unmount_all_below

pytestmark = pytest.mark.usefixtures("mounting")

Edit = Callable[[Path], None]


def _write(path: str, content: str = "x") -> Edit:
    def edit(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)

    return edit


def _delete(path: str) -> Edit:
    def edit(root: Path) -> None:
        if (root / path).is_dir():
            shutil.rmtree(root / path)
        else:
            (root / path).unlink()

    return edit


def _directory(path: str) -> Edit:
    return lambda root: (root / path).mkdir()


def _all(*edits: Edit) -> Edit:
    def edit(root: Path) -> None:
        for one in edits:
            one(root)

    return edit


def _special(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (root / "soft").symlink_to("nowhere")
    os.link(root / "d/f", root / "hard")
    (root / os.fsdecode(b"no text \xff")).write_text("x")


def _attributes(root: Path) -> None:
    os.setxattr(root / "d", "user.first", b"1")
    os.setxattr(root / "d/f", "user.first", b"1")
    os.chown(root / "d", 12, 34)
    (root / "d").chmod(0o2750)
    os.utime(root / "d", ns=(1, 1_234_567_890_123_456_789))


def _other_attributes(root: Path) -> None:
    os.removexattr(root / "d", "user.first")
    os.setxattr(root / "d", "user.second", b"2")
    (root / "d").chmod(0)


LAYERS: dict[str, list[Edit]] = {
    "made and deleted": [_all(_write("n/a"), _write("m/sub/f")), _all(_delete("n"), _delete("m/sub"))],
    "made in what was replaced, and deleted": [_all(_delete("d"), _write("d/x"), _write("d/sub/y")), _delete("d/sub")],
    "nothing": [_all(), _all()],
    "an addition changed and one deleted": [
        _all(_write("n/a"), _write("n/b")),
        _all(_write("n/a", "y"), _delete("n/b")),
    ],
    "deletions of what the base has": [_delete("d/f"), _delete("e")],
    "deleted and made again": [_delete("d/f"), _write("d/f", "again")],
    "a directory deleted and made again": [_delete("d"), _all(_directory("d"), _write("d/new"))],
    "a directory replaced, then filled": [_all(_delete("d"), _directory("d")), _write("d/new"), _delete("d/new")],
    "a directory replaced twice": [_all(_delete("d"), _write("d/1")), _all(_delete("d"), _write("d/2"))],
    "a replaced directory deleted": [_all(_delete("d"), _directory("d")), _delete("d")],
    "a file for a directory and back": [_all(_delete("d"), _write("d")), _all(_delete("d"), _directory("d"))],
    "a directory for a file and back": [_all(_delete("e/f"), _write("e/f/in")), _all(_delete("e/f"), _write("e/f"))],
    "deep below what was replaced": [_all(_delete("d"), _write("d/sub/x")), _write("d/sub/y"), _delete("d/sub/x")],
    "special files": [_special, _all(_write("hard", "of its own"), _delete("fifo"))],
    "attributes": [_attributes, _other_attributes, _write("d/new")],
}


@pytest.mark.parametrize("name", LAYERS)
def test_merged_layers_show_what_the_stacked_ones_show(tmp_path: Path, name: str) -> None:
    base, scratch = tmp_path / "base", tmp_path / "scratch"
    scratch.mkdir()
    for path in ("d/f", "d/sub/deep", "e/f", "top"):
        _write(path)(base)
    stack = [base]
    for number, edit in enumerate(LAYERS[name]):
        upper = tmp_path / f"upper{number}"
        for directory in ("upper", "work", "point"):
            (tmp_path / f"{directory}{number}").mkdir()
        edit(_mount(stack, tmp_path / f"point{number}", upper, tmp_path / f"work{number}"))
        unmount_all_below(tmp_path)
        stack.append(upper)
    before = read_directory(tmp_path)
    for directory in ("stacked", "merged"):
        (tmp_path / directory).mkdir()
    with merged(stack[1:], [base], scratch) as tree:
        expected = read_directory(_mount(stack, tmp_path / "stacked"))
        found = read_directory(_mount([base, tree], tmp_path / "merged"))
        unmount_all_below(tmp_path)
    # The root is the engine's own.
    expected.pop(b"."), found.pop(b".")
    assert differences(expected, found, names=("the stack", "one layer")) == []
    # Nothing is left, and the layers are as they were.
    assert os.listdir(scratch) == []
    for directory in ("stacked", "merged"):
        (tmp_path / directory).rmdir()
    changed = differences(before, read_directory(tmp_path))
    assert [line for line in changed if not line.startswith((".: mtime", "scratch: mtime"))] == []


def _mount(stack: list[Path], point: Path, upper: Path | None = None, work: Path | None = None) -> Path:
    """Mount the union of directories, base first."""
    home = point.parent
    (home / "empty").mkdir(exist_ok=True)
    source = OverlaySource(
        lowers=[str(lower.relative_to(home)) for lower in (*reversed(stack), home / "empty")],
        upper=str(upper) if upper is not None else None,
        work=str(work) if work is not None else None,
    )
    mount_overlay(source, str(point), directory=home)
    return point


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "layer").mkdir()
    _write("a/b")(tmp_path / "layer")
    with (
        pytest.raises(FileNotFoundError),
        merged([tmp_path / "layer", tmp_path / "none"], [], tmp_path / "scratch"),
    ):
        pass
    assert os.listdir(tmp_path / "scratch") == []


def test_trees_deeper_than_any_path(tmp_path: Path) -> None:
    depth = 2_500
    base, first, second, scratch = (tmp_path / name for name in ("base", "first", "second", "scratch"))
    for directory in (base, first, second, scratch):
        directory.mkdir()
    with removed_afterwards(base), removed_afterwards(first), removed_afterwards(second), removed_afterwards(scratch):
        deepen(base, depth, file="from-base")
        deepen(first, depth, file="from-first")
        deepen(second, depth, file="from-second")
        descriptor = innermost(second)
        for name in ("from-base", "from-first"):
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=descriptor)
        os.close(descriptor)
        with merged([first, second], [base], scratch) as tree:
            assert depth_of(tree) == depth
            descriptor = innermost(tree)
            # The whiteout of what is in none of the layers below is gone.
            assert sorted(os.listdir(descriptor)) == ["from-base", "from-second"]
            os.close(descriptor)
        assert os.listdir(scratch) == []
