"""Directory trees that are deeper than a path can say."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["deepen", "depth_of", "innermost", "removed_afterwards"]


def deepen(directory: Path, depth: int, *, name: str = "d", file: str | None = "file") -> None:
    """Make directories in one another below a directory, with a file in the innermost one, if it has a name."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(depth):
            os.mkdir(name, 0o755, dir_fd=descriptor)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        if file is not None:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=descriptor))
    finally:
        os.close(descriptor)


def innermost(directory: Path, *, name: str = "d") -> int:
    """Open the innermost of directories of one name that are in one another."""
    return _descend(directory, name)[0]


def depth_of(directory: Path, *, name: str = "d") -> int:
    """Return how many directories of one name are in one another."""
    descriptor, depth = _descend(directory, name)
    os.close(descriptor)
    return depth


def _descend(directory: Path, name: str) -> tuple[int, int]:
    depth = 0
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    while True:
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        except FileNotFoundError:
            return descriptor, depth
        os.close(descriptor)
        descriptor = inner
        depth += 1


@contextmanager
def removed_afterwards(directory: Path) -> Iterator[Path]:
    """Let a directory go at the end with everything in it: pytest's own removal stops at a deep tree."""
    try:
        yield directory
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", directory], check=True)
