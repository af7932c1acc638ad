"""A blob passes in constant memory, whatever its size."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.registries import RegistryServer, run_program

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1 << 20


async def test_a_large_blob_needs_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    sizes = (32 * MIB, 512 * MIB)
    async with RegistryServer.run(tmp_path / "server") as server:
        blobs = [f"{server.store_sparse('x', size)}:{size}" for size in sizes]
        program = (sys.executable, "-m", "tests.support.blob_memory")
        small, large = json.loads(await run_program(*program, f"{server.address}/x:1", *blobs))
    assert large < 250 * MIB
    assert large - small < 100 * MIB
