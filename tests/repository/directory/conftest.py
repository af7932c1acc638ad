"""What the tests of directory repositories share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Where blocking work runs."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Root of the repository; it does not exist yet."""
    return tmp_path / "repository"
