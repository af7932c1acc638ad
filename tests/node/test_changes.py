"""Changes, against what a real overlay mount leaves in its upper directory.

What the engine says of the same changes under overlay2 is compared in tests/e2e.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.node.changes import Change, ChangeKind, changes
from services.node.errors import UnsupportedError
from tests.support.deep import deepen, innermost, removed_afterwards
from tests.support.mounts import mount, unmount_all_below

pytestmark = pytest.mark.usefixtures("mounting")


@contextlib.contextmanager
def _mounted(base: Path, *lowers: Path, upper: Path | None = None) -> Iterator[Path]:
    """Mount a union of lower directories, top first."""
    point = base / f"mnt{len(list(base.iterdir()))}"
    point.mkdir()
    options = f"redirect_dir=nofollow,metacopy=off,lowerdir={':'.join(map(str, lowers))}"
    if upper is not None:
        work = base / f"work{point.name}"
        work.mkdir()
        options += f",upperdir={upper},workdir={work}"
    mount("-t", "overlay", "overlay", "-o", options, point)
    try:
        yield point
    finally:
        unmount_all_below(base)


def _go_on() -> None:
    pass


def _make_lower(lower: Path) -> None:
    for directory in ("d/sub/deep", "e", "empty"):
        (lower / directory).mkdir(parents=True)
    for file in ("f", "g", "d/a", "d/b", "d/sub/c", "d/sub/deep/x", "e/a"):
        (lower / file).write_text(file)
        os.utime(lower / file, (1_000_000_000, 1_000_000_000))
    (lower / "link").symlink_to("f")
    os.link(lower / "e/a", lower / "e/hard")
    os.mkfifo(lower / "fifo")


def _changes(tmp_path: Path, edit: Callable[[Path], None]) -> list[str]:
    """Return the changes that an edit makes, as `docker diff` prints them."""
    lower, second, upper = (tmp_path / name for name in ("lower", "second", "upper"))
    for directory in (lower, second, upper):
        directory.mkdir()
    _make_lower(lower)
    (second / "from-second").write_text("second")
    with _mounted(tmp_path, second, lower, upper=upper) as union:
        edit(union)
    with _mounted(tmp_path, second, lower) as view:
        return [f"{'CAD'[change.kind]} {os.fsdecode(change.path)}" for change in changes(upper, view, step=_go_on)]


def _nothing(_union: Path) -> None:
    return


def _touch_same(union: Path) -> None:
    # Opened for writing and copied up, but the same in every respect that counts.
    (union / "f").open("a").close()
    os.utime(union / "f", (1_000_000_000, 1_000_000_000))


def _add(union: Path) -> None:
    (union / "new").write_text("new")
    (union / "d/new").write_text("new")
    (union / "e2/x").mkdir(parents=True)
    (union / "newlink").symlink_to("nowhere")
    os.mkfifo(union / "newfifo")


def _modify(union: Path) -> None:
    (union / "f").write_text("changed")
    (union / "d/sub/c").chmod(0o600)
    os.chown(union / "g", 1, 1)
    os.chown(union / "link", 1, 1, follow_symlinks=False)
    (union / "from-second").write_text("changed")


def _delete(union: Path) -> None:
    (union / "f").unlink()
    (union / "link").unlink()
    (union / "fifo").unlink()
    shutil.rmtree(union / "d")
    (union / "empty").rmdir()


def _replace_directory(union: Path) -> None:
    shutil.rmtree(union / "d")
    (union / "d/sub").mkdir(parents=True)
    (union / "d/b").write_text("another")
    (union / "d/sub/new").write_text("new")


def _replace_deep(union: Path) -> None:
    # Below the directory that overlayfs makes opaque nothing says any more that it is.
    shutil.rmtree(union / "d")
    (union / "d/sub/deep").mkdir(parents=True)


def _file_for_directory(union: Path) -> None:
    shutil.rmtree(union / "d")
    (union / "d").write_text("a file now")
    (union / "f").unlink()
    (union / "f").mkdir()
    (union / "f/inside").write_text("x")


def _link_for_file(union: Path) -> None:
    (union / "f").unlink()
    (union / "f").symlink_to("g")


def _directory_attributes(union: Path) -> None:
    (union / "empty").chmod(0o700)
    os.utime(union / "e", (5, 5))


def _capability(union: Path) -> None:
    # cap_net_raw=ep, version 2.
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(union / "g", "security.capability", value)
    os.utime(union / "g", (1_000_000_000, 1_000_000_000))


def _add_and_delete(union: Path) -> None:
    (union / "temporary").write_text("x")
    (union / "temporary").unlink()
    (union / "d/temporary").mkdir()
    (union / "d/temporary").rmdir()


def _rename(union: Path) -> None:
    (union / "f").rename(union / "e/f")
    (union / "d/sub/c").rename(union / "d/b")


def _hard_link(union: Path) -> None:
    os.link(union / "f", union / "e/f")


def _odd_names(union: Path) -> None:
    (union / "d/ä ö").write_text("x")
    (union / os.fsdecode(b"\xff")).write_text("x")


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (_nothing, []),
        (_touch_same, []),
        (_add, ["C /d", "A /d/new", "A /e2", "A /e2/x", "A /new", "A /newfifo", "A /newlink"]),
        (_modify, ["C /d", "C /d/sub", "C /d/sub/c", "C /f", "C /from-second", "C /g", "C /link"]),
        (_delete, ["D /d", "D /empty", "D /f", "D /fifo", "D /link"]),
        (
            _replace_directory,
            ["C /d", "D /d/a", "C /d/b", "C /d/sub", "D /d/sub/c", "D /d/sub/deep", "A /d/sub/new"],
        ),
        (_replace_deep, ["C /d", "D /d/a", "D /d/b", "C /d/sub", "D /d/sub/c", "C /d/sub/deep", "D /d/sub/deep/x"]),
        (_file_for_directory, ["C /d", "C /f", "A /f/inside"]),
        (_link_for_file, ["C /f"]),
        (_directory_attributes, ["C /empty"]),
        (_capability, ["C /g"]),
        (_add_and_delete, []),
        (_rename, ["C /d", "C /d/b", "C /d/sub", "D /d/sub/c", "C /e", "A /e/f", "D /f"]),
        (_hard_link, ["C /e", "A /e/f"]),
        (_odd_names, ["C /d", "A /d/ä ö", "A /" + os.fsdecode(b"\xff")]),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_changes(tmp_path: Path, edit: Callable[[Path], None], expected: list[str]) -> None:
    assert _changes(tmp_path, edit) == expected


def test_a_layer_on_nothing_is_all_added(tmp_path: Path) -> None:
    _make_lower(tmp_path)
    os.mknod(tmp_path / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    found = changes(tmp_path, None, step=_go_on)
    assert {change.kind for change in found} == {ChangeKind.ADD}
    assert Change(b"/d/sub/deep/x", ChangeKind.ADD) in found
    assert len(found) == 15


def test_a_tree_that_changes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker diff` of a running container: what vanishes while it is compared is left out."""
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    for name in ("a", "d/b"):
        (upper / name).write_text(name)
    listdir = os.listdir

    def vanishing(descriptor: int) -> list[str]:
        found = listdir(descriptor)
        monkeypatch.undo()
        shutil.rmtree(upper / "d")
        (upper / "a").unlink()
        return found

    monkeypatch.setattr(os, "listdir", vanishing)
    assert changes(upper, None, step=_go_on) == []


@pytest.mark.parametrize("depth", [300, 2_500])
def test_changes_at_any_depth(tmp_path: Path, depth: int) -> None:
    """A container makes directories in one another without ever naming the whole path."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    with removed_afterwards(lower), removed_afterwards(upper):
        lower.mkdir()
        upper.mkdir()
        deepen(lower, depth)
        with _mounted(tmp_path, lower, upper=upper) as union:
            # Into the innermost one of the image, and a new one from there.
            descriptor = innermost(union)
            os.unlink("file", dir_fd=descriptor)
            os.mkdir("new", dir_fd=descriptor)
            os.close(descriptor)
            deepen(union, depth, name="e")
        (tmp_path / "empty").mkdir()
        with _mounted(tmp_path, tmp_path / "empty", lower) as view:
            found = {change.path: change.kind for change in changes(upper, view, step=_go_on)}
    deepest = b"/d" * depth
    assert found == {
        **{b"/d" * count: ChangeKind.MODIFY for count in range(1, depth + 1)},
        **{b"/e" * count: ChangeKind.ADD for count in range(1, depth + 1)},
        deepest + b"/file": ChangeKind.DELETE,
        deepest + b"/new": ChangeKind.ADD,
        b"/e" * depth + b"/file": ChangeKind.ADD,
    }


def test_paths_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names all directories above it, so that a deep tree has more than can be held."""
    monkeypatch.setattr("services.node.changes._PATHS_LIMIT", 10_000)
    deepen(tmp_path, 90)
    assert len(changes(tmp_path, None, step=_go_on)) == 91
    deepen(tmp_path, 50, name="e")
    with pytest.raises(UnsupportedError, match="longer than 10000 bytes altogether"):
        changes(tmp_path, None, step=_go_on)


def test_a_layer_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        changes(tmp_path / "missing", None, step=_go_on)
