"""Files that stand for layer archives where only their bytes matter."""

import hashlib
import os
from pathlib import Path
from typing import Final

from services.common.archive.model import LayerArchive, MediaType
from services.common.digest import Digest

__all__ = ["random_archive", "sparse_archive"]

_MARK: Final = 64


def random_archive(path: Path, size: int) -> LayerArchive:
    """Write a file of random bytes and describe it as an archive."""
    path.write_bytes(os.urandom(size))
    return _described(path)


def sparse_archive(path: Path, size: int) -> LayerArchive:
    """Make a file that is unique by its first bytes and takes no space for the rest."""
    with path.open("wb") as file:
        file.write(os.urandom(_MARK))
        file.truncate(size)
    return _described(path)


def _described(path: Path) -> LayerArchive:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    return LayerArchive(
        path=path,
        digest=Digest(digest),
        diff_id=Digest(hashlib.sha256(digest.encode()).hexdigest()),
        size=size,
        uncompressed_size=2 * size,
        media_type=MediaType.TAR_ZSTD,
    )
