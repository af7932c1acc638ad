"""Where a worker node keeps its layers, and where it mounts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sandbox import Sandbox
from tests.support.mounts import mounts_below, unmount_all_below


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Home directory of a driver, not made yet."""
    return tmp_path / "home"


@pytest.fixture
def cvmfs_root(tmp_path: Path) -> Path:
    """Directory of the machine's repositories."""
    root = tmp_path / "cvmfs"
    root.mkdir()
    return root


@pytest.fixture
def mounting(tmp_path: Path) -> Iterator[None]:
    """Let a test mount file systems below its directory, which must be gone when it ends."""
    Sandbox.current()
    yield
    left = mounts_below(tmp_path)
    unmount_all_below(tmp_path)
    assert left == []
