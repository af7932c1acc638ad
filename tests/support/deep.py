"""Directory trees that are deeper than a path can say."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["deepen", "depth_of", "removed_afterwards"]


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


def depth_of(directory: Path, *, name: str = "d") -> int:
    """Return how many directories of one name are in one another."""
    depth = 0
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            try:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
            except FileNotFoundError:
                return depth
            os.close(descriptor)
            descriptor = inner
            depth += 1
    finally:
        os.close(descriptor)


@contextmanager
def removed_afterwards(directory: Path) -> Iterator[Path]:
    """Let a directory go at the end with everything in it: pytest's own removal stops at a deep tree."""
    try:
        yield directory
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", directory], check=True)
