"""Trees that change while they are packed, as a running container's does: a right archive or a clear error."""

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.common.archive.errors import TreeChangedError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.pack import pack
from services.common.archive.survey import survey


def members(content: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {info.name: info for info in tar}


@contextmanager
def changing(change: Callable[[], None]) -> Iterator[None]:
    """Let something happen in the tree all the time."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            change()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Meddler:
    """A sink that changes the tree when the first bytes of a large file arrive."""

    def __init__(self, change: Callable[[], None]) -> None:
        self.content = io.BytesIO()
        self._change = change
        self._done = False

    def write(self, data: bytes) -> None:
        self.content.write(data)
        if not self._done:
            self._done = True
            self._change()


def test_a_file_that_shrinks_is_an_error(tree: Path) -> None:
    (tree / "log").write_bytes(b"x" * (3 << 20))
    with pytest.raises(TreeChangedError, match="'log' became shorter while it was read"):
        pack(tree, Meddler(lambda: os.truncate(tree / "log", 1 << 20)))


def test_a_sparse_file_that_shrinks_is_an_error(tree: Path) -> None:
    with (tree / "log").open("wb") as file:
        file.write(b"x" * (2 << 20))
        file.truncate(8 << 20)
    with pytest.raises(TreeChangedError, match="'log' became shorter while it was read"):
        pack(tree, Meddler(lambda: os.truncate(tree / "log", 3 << 20)))


def test_a_file_that_grows_is_archived_as_it_was(tree: Path) -> None:
    (tree / "log").write_bytes(b"x" * (3 << 20))
    (tree / "next").write_bytes(b"n")

    def grow() -> None:
        with (tree / "log").open("ab") as file:
            file.write(b"y" * 1000)

    sink = Meddler(grow)
    layer = pack(tree, sink)
    found = members(sink.content.getvalue())
    assert (found["log"].size, found["next"].size) == (3 << 20, 1)
    assert survey(io.BytesIO(sink.content.getvalue()), limits=ArchiveLimits()) == layer


def test_what_vanishes_is_left_out(tree: Path) -> None:
    (tree / "a").write_bytes(b"x" * (3 << 20))
    (tree / "b").write_bytes(b"")
    (tree / "c").mkdir()
    (tree / "d").write_bytes(b"")

    def vanish() -> None:
        (tree / "b").unlink()
        (tree / "c").rmdir()

    sink = Meddler(vanish)
    pack(tree, sink)
    assert list(members(sink.content.getvalue())) == ["a", "d"]


def test_a_tree_in_motion_gives_a_right_archive_or_an_error(tree: Path) -> None:
    """Files appear, vanish, grow, shrink and change their type while they are packed."""
    paths = [f"f{number:02}" for number in range(40)]
    turn = iter(range(1 << 40))

    def change() -> None:
        number = next(turn)
        path = tree / paths[number % len(paths)]
        match number // len(paths) % 5:
            case 0:
                path.write_bytes(b"x" * (number % 300_000))
            case 1:
                os.truncate(path, number % 1000)
            case 2:
                path.unlink()
                path.symlink_to("/etc/passwd")
            case 3:
                path.unlink()
                path.mkdir()
            case _:
                path.rmdir()

    right = 0
    with changing(change):
        for _ in range(60):
            sink = io.BytesIO()
            try:
                layer = pack(tree, sink)
            except TreeChangedError:
                continue
            assert survey(io.BytesIO(sink.getvalue()), limits=ArchiveLimits()) == layer
            members(sink.getvalue())
            right += 1
    assert right
