import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.trees import CONTAINER_EXCLUSIONS, Exclusions, differences, read_directory

_TIME = 1_700_000_000_123_456_789


def _populate(root: Path) -> None:
    root.mkdir()
    (root / "directory").mkdir()
    (root / "directory" / "file").write_bytes(b"content")
    os.link(root / "directory" / "file", root / "second")
    (root / "link").symlink_to("directory/file")
    os.mkfifo(root / "fifo", 0o600)
    os.mknod(root / "null", 0o600 | 0o020000, os.makedev(1, 3))
    (root / "tool").write_bytes(b"#!/bin/sh\n")
    os.setxattr(root / "tool", "user.note", b"a\0b")
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(_TIME, _TIME), follow_symlinks=False)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    left, right = tmp_path / "left", tmp_path / "right"
    _populate(left)
    _populate(right)
    return left, right


def test_equal_trees_have_no_differences(pair: tuple[Path, Path]) -> None:
    left, right = map(read_directory, pair)
    assert differences(left, right) == []
    assert set(left) == {
        b".",
        b"directory",
        b"directory/file",
        b"second",
        b"link",
        b"fifo",
        b"null",
        b"tool",
    }


def _keep_time(path: Path) -> None:
    os.utime(path, ns=(_TIME, _TIME), follow_symlinks=False)


def _mode(root: Path) -> None:
    (root / "tool").chmod(0o4755)


def _owner_of_link(root: Path) -> None:
    os.chown(root / "link", 3, 4, follow_symlinks=False)


def _time_of_fifo(root: Path) -> None:
    os.utime(root / "fifo", ns=(_TIME, _TIME + 1))


def _time_of_root(root: Path) -> None:
    os.utime(root, ns=(_TIME, _TIME + 1))


def _xattr_of_file(root: Path) -> None:
    os.setxattr(root / "tool", "user.note", b"a\0c")


def _xattr_of_device(root: Path) -> None:
    os.setxattr(root / "null", "trusted.note", b"x")


def _two_files_for_one(root: Path) -> None:
    (root / "second").unlink()
    (root / "second").write_bytes(b"content")
    _keep_time(root / "second")
    _keep_time(root)


def _other_device(root: Path) -> None:
    (root / "null").unlink()
    os.mknod(root / "null", 0o600 | 0o020000, os.makedev(1, 5))
    _keep_time(root / "null")
    _keep_time(root)


def _other_target(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("directory/fila")
    _keep_time(root / "link")
    _keep_time(root)


def _odd_name(root: Path) -> None:
    (root / os.fsdecode(b"ex\xff\ntra")).mkdir()
    _keep_time(root)


_BEFORE, _AFTER = "1700000000.123456789", "1700000000.123456790"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_mode, ["tool: mode 0644 in left, 4755 in right"]),
        (_owner_of_link, ["link: uid 0 in left, 3 in right", "link: gid 0 in left, 4 in right"]),
        (_time_of_fifo, [f"fifo: mtime {_BEFORE} in left, {_AFTER} in right"]),
        (_time_of_root, [f".: mtime {_BEFORE} in left, {_AFTER} in right"]),
        (_xattr_of_file, [r"tool: xattrs {'user.note': b'a\x00b'} in left, {'user.note': b'a\x00c'} in right"]),
        (_xattr_of_device, ["null: xattrs {} in left, {'trusted.note': b'x'} in right"]),
        (
            _two_files_for_one,
            [
                "directory/file: links (b'directory/file', b'second') in left, () in right",
                "second: links (b'directory/file', b'second') in left, () in right",
            ],
        ),
        (_other_device, ["null: rdev (1, 3) in left, (1, 5) in right"]),
        (_other_target, ["link: target b'directory/file' in left, b'directory/fila' in right"]),
        (_odd_name, [r"ex\udcff\ntra: a directory in right only"]),
    ],
)
def test_each_difference_is_named(pair: tuple[Path, Path], change: Callable[[Path], None], expected: list[str]) -> None:
    change(pair[1])
    assert differences(*map(read_directory, pair)) == expected


def test_content_of_equal_size_differs_in_its_hash(pair: tuple[Path, Path]) -> None:
    (pair[1] / "tool").write_bytes(b"#!/bin/ss\n")
    _keep_time(pair[1] / "tool")
    lines = differences(*map(read_directory, pair))
    assert [line.split(" ")[:2] for line in lines] == [["tool:", "sha256"]]


def test_a_file_instead_of_a_directory_differs_in_kind(tmp_path: Path) -> None:
    (tmp_path / "a" / "x").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"")
    lines = differences(read_directory(tmp_path / "a"), read_directory(tmp_path / "b"), names=("A", "B"))
    assert "x: kind 'directory' in A, 'file' in B" in lines


def test_exclusions_leave_out_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    for path in ("etc/hosts", "etc/passwd", "dev/null", "home/etc/hosts"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    tree = read_directory(tmp_path, exclusions=CONTAINER_EXCLUSIONS)
    assert set(tree) == {b".", b"etc", b"etc/passwd", b"dev", b"home", b"home/etc", b"home/etc/hosts"}
    assert [path for path, entry in tree.items() if entry.mtime is None] == [b".", b"dev", b"etc"]


def test_names_longer_than_a_path_may_be_are_read(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=descriptor)
        inner = os.open("n" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=descriptor))
    os.symlink("x", "link", dir_fd=descriptor)
    os.close(descriptor)
    assert len(read_directory(tmp_path, exclusions=Exclusions())) == 23
