"""What the archive's tests share."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import DeletionEncoding, OverlayDeletions
from services.common.archive.survey import survey
from services.common.archive.unpack import unpack

Unpack = Callable[..., LayerContent]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty directory for a layer, in one of its own that has a neighbour."""
    tree = tmp_path / "private" / "tree"
    tree.mkdir(parents=True)
    return tree


@pytest.fixture
def put(tree: Path) -> Unpack:
    """Unpack bytes into the tree; a survey of the same bytes must come to the same result."""

    def put(
        content: bytes, *, deletions: DeletionEncoding | None = None, limits: ArchiveLimits | None = None
    ) -> LayerContent:
        limits = limits or ArchiveLimits()
        surveyed = survey(io.BytesIO(content), limits=limits)
        unpacked = unpack(io.BytesIO(content), tree, deletions=deletions or OverlayDeletions(), limits=limits)
        assert unpacked == surveyed
        return unpacked

    return put


@pytest.fixture
def open_descriptors() -> Callable[[], int]:
    """Count this process's descriptors."""
    return lambda: len(os.listdir("/proc/self/fd"))
