"""A blob passes in constant memory, whatever its size."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.registries import RegistryServer, run_program

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1 << 20


def store_sparse(server: RegistryServer, repository: str, size: int) -> str:
    """Put a blob of zeros into a registry's storage, which takes no space there; return its digest."""
    hasher = hashlib.sha256()
    for _ in range(size // MIB):
        hasher.update(bytes(MIB))
    digest = hasher.hexdigest()
    storage = server.directory / "data/docker/registry/v2"
    data = storage / "blobs/sha256" / digest[:2] / digest / "data"
    link = storage / "repositories" / repository / "_layers/sha256" / digest / "link"
    for path in (data, link):
        path.parent.mkdir(parents=True)
    data.touch()
    os.truncate(data, size)
    link.write_text(f"sha256:{digest}")
    return digest


async def test_a_large_blob_needs_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    sizes = (32 * MIB, 512 * MIB)
    async with RegistryServer.run(tmp_path / "server") as server:
        blobs = [f"{store_sparse(server, 'x', size)}:{size}" for size in sizes]
        program = (sys.executable, "-m", "tests.support.blob_memory")
        small, large = json.loads(await run_program(*program, f"{server.address}/x:1", *blobs))
    assert large < 150 * MIB
    assert large - small < 10 * MIB
