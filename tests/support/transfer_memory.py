"""A program that uploads and downloads archives of given sizes and prints its peak memory after each, in bytes.

usage: python -m tests.support.transfer_memory DIRECTORY SIZE..., with the object store's settings in the environment
"""

import asyncio
import json
import sys
from pathlib import Path

from harness.peak_memory import peak_memory
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName
from tests.support.layer_files import sparse_archive

__all__ = ["main"]


async def main(directory: Path, sizes: list[int]) -> list[int]:
    """Transfer archives and return the peak of memory after each one."""
    peaks = []
    async with ObjectStore(settings=ObjectStoreSettings.load()) as store:
        for size in sizes:
            archive = sparse_archive(directory / "archive", size)
            if not await store.upload(archive, repository=RepositoryName("test.cern.ch")):
                raise AssertionError("the archive is new")
            layer = await store.download(archive.digest, directory / "copy")
            if layer.size != size:
                raise AssertionError("the store has another size")
            peaks.append(peak_memory())
    return peaks


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]]))))  # noqa: T201
