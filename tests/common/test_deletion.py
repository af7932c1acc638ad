"""Deletion of trees that are deep, large, unwilling, or at work."""

import os
import resource
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.deletion import TreeDeletionError, delete_tree
from tests.support.deep import deepen, depth_of, removed_afterwards
from tests.support.mounts import mount, unmount_all_below


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    with removed_afterwards(tmp_path / "tree") as tree:
        tree.mkdir()
        yield tree


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Let this process have hardly more descriptors than it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 60, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_tree_of_every_kind_of_file_goes_and_its_links_are_not_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/file").write_text("content")
    (tree / "a/link").symlink_to(outside)
    (tree / "a/b/hard").hardlink_to(outside / "file")
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "a/whiteout", stat.S_IFCHR, 0)
    os.mkdir(os.fsencode(tree) + b"/\xff\xfe")
    delete_tree(tree)
    assert not tree.exists()
    assert os.listdir(outside) == ["file"]


def test_nothing_happens_where_nothing_is(tree: Path) -> None:
    delete_tree(tree / "absent")
    delete_tree(tree / "absent/absent")
    (tree / "file").touch()
    delete_tree(tree / "file/absent")


def test_what_is_no_directory_is_refused_and_kept(tree: Path) -> None:
    (tree / "directory").mkdir()
    (tree / "file").touch()
    (tree / "link").symlink_to("directory")
    for name in ("file", "link"):
        with pytest.raises(NotADirectoryError):
            delete_tree(tree / name)
    assert sorted(os.listdir(tree)) == ["directory", "file", "link"]


def test_a_directory_is_deleted_relative_to_a_descriptor(tree: Path) -> None:
    (tree / "a/b").mkdir(parents=True)
    (tree / "kept").mkdir()
    descriptor = os.open(tree, os.O_RDONLY)
    try:
        delete_tree("a", dir_fd=descriptor)
    finally:
        os.close(descriptor)
    assert os.listdir(tree) == ["kept"]


@pytest.mark.parametrize(("depth", "name"), [(1_100, "d"), (20_000, "d"), (600, "x" * 255)])
def test_no_depth_is_too_deep(tree: Path, few_descriptors: None, depth: int, name: str) -> None:  # noqa: ARG001
    deepen(tree, depth, name=name)
    assert depth_of(tree, name=name) == depth
    delete_tree(tree)
    assert not tree.exists()


def test_a_deep_tree_with_something_on_every_level_goes(tree: Path) -> None:
    for name in ("d", "e", "f"):
        deepen(tree, 200, name=name)
        descriptor = os.open(tree, os.O_RDONLY)
        for number in range(200):
            inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
            os.mkdir(f"side-{number}", dir_fd=inner)
            os.mkdir(f"side-{number}/inner", dir_fd=inner)
            os.close(os.open(f"file-{number}", os.O_CREAT, dir_fd=inner))
            os.close(descriptor)
            descriptor = inner
        os.close(descriptor)
    delete_tree(tree)
    assert not tree.exists()


def test_a_large_directory_goes(tree: Path) -> None:
    for number in range(6_000):
        if number % 3:
            (tree / f"file-{number}").touch()
        else:
            (tree / f"directory-{number}/inner").mkdir(parents=True)
    delete_tree(tree)
    assert not tree.exists()


def test_directories_without_any_permission_go(tree: Path) -> None:
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/file").touch()
    for place in (tree / "a/b/c", tree / "a/b", tree / "a", tree):
        place.chmod(0)
    delete_tree(tree)
    assert not tree.exists()


@pytest.fixture
def attributes() -> Iterator[list[Path]]:
    """Paths whose immutable and append-only attributes go at the end."""
    places: list[Path] = []
    yield places
    for place in places:
        subprocess.run(["chattr", "-i", "-a", place], check=True)


def test_what_is_immutable_stays_and_is_named_and_the_rest_goes(tree: Path, attributes: list[Path]) -> None:
    for name in ("before", "kept", "zone"):
        (tree / name).mkdir()
        (tree / name / "file").touch()
        (tree / name / "other").touch()
    attributes.append(tree / "kept/file")
    subprocess.run(["chattr", "+i", tree / "kept/file"], check=True)
    with pytest.raises(
        TreeDeletionError, match=r"tree/kept/file' cannot be deleted: Operation not permitted: .*chattr"
    ):
        delete_tree(tree)
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == ["kept", "kept/file"]


def test_how_much_stays_is_said(tree: Path, attributes: list[Path]) -> None:
    (tree / "logs").mkdir()
    for number in range(3):
        log = tree / "logs" / str(number)
        log.touch()
        attributes.append(log)
        subprocess.run(["chattr", "+a", log], check=True)
    with pytest.raises(TreeDeletionError, match=r"tree/logs/\d' cannot be deleted \(nor can 2 more\): Operation not"):
        delete_tree(tree)


def test_a_path_too_long_to_be_shown_is_shown_by_its_end(tree: Path) -> None:
    deepen(tree, 400, file=None)
    place = tree / "/".join("d" * 400)
    (place / "file").touch()
    subprocess.run(["chattr", "+i", place / "file"], check=True)
    try:
        with pytest.raises(TreeDeletionError, match=r"^'\.\.\..*/d/file' cannot be deleted") as failure:
            delete_tree(tree)
    finally:
        subprocess.run(["chattr", "-i", place / "file"], check=True)
    assert len(str(failure.value)) < 600


@pytest.mark.parametrize("same_file_system", [True, False])
def test_what_is_mounted_in_a_tree_is_neither_deleted_nor_entered(
    tree: Path, tmp_path: Path, *, same_file_system: bool
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tree / "a/point").mkdir(parents=True)
    (tree / "a/file").touch()
    if same_file_system:
        mount("--bind", elsewhere, tree / "a/point")
    else:
        mount("-t", "tmpfs", "tmpfs", tree / "a/point")
    try:
        (tree / "a/point/precious").touch()
        with pytest.raises(TreeDeletionError, match=r"a/point' cannot be deleted: Device or resource busy: .*mounted"):
            delete_tree(tree)
        assert (tree / "a/point/precious").exists()
        assert not (tree / "a/file").exists()
    finally:
        unmount_all_below(tree)
    delete_tree(tree)
    assert not tree.exists()


def test_a_mount_point_itself_is_not_emptied(tree: Path) -> None:
    mount("-t", "tmpfs", "tmpfs", tree)
    try:
        (tree / "precious").touch()
        with pytest.raises(TreeDeletionError, match="tree' cannot be deleted: Device or resource busy"):
            delete_tree(tree)
        assert (tree / "precious").exists()
    finally:
        unmount_all_below(tree.parent)


def test_a_tree_that_somebody_works_in_goes_when_it_is_left_alone(tree: Path, tmp_path: Path) -> None:
    """Whoever moves deep directories about meanwhile gets nothing deleted outside."""
    outside = tmp_path / "outside"
    (outside / "precious").mkdir(parents=True)
    deepen(tree, 300)
    stop, moved = threading.Event(), threading.Event()

    def move() -> None:
        deep = tree / "/".join("d" * 100)
        while not stop.is_set():
            for source, target in ((deep, outside / "guest"), (outside / "guest", deep)):
                try:
                    source.rename(target)
                    moved.set()
                except OSError:
                    continue

    mover = threading.Thread(target=move)
    mover.start()
    try:
        assert moved.wait(60)
        for number in range(10):
            try:
                delete_tree(tree)
            except TreeDeletionError as error:
                assert "somebody works in it" in str(error)  # noqa: PT017 - it is raised now and then
            if not tree.exists():
                another = tmp_path / f"another-{number}"
                another.mkdir()
                deepen(another, 300)
                another.rename(tree)
    finally:
        stop.set()
        mover.join()
    delete_tree(tree)
    assert not tree.exists()
    assert (outside / "precious").is_dir()
    delete_tree(outside)
