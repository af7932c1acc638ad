"""Much at once on one node: commits, starts of containers, and disks that are full."""

import time
from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from harness.reliability.figures import Chapter, Trial
from harness.seaweedfs import SeaweedFS
from tests.support.loaded_node import MIB, LoadedNode
from tests.support.object_stores import new_bucket
from tests.support.soak import Soak

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LIMIT: Final = 64 * MIB
"""GRAPHDRIVER_WORK_MEMORY, as it is by default."""
_BESIDES: Final = 100 * MIB
"""What the driver needs besides, its client of the object store included."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def loaded(seaweedfs: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LoadedNode]:
    """A driver that uploads to a bucket of its own."""
    async with (
        new_bucket(seaweedfs.access) as access,
        LoadedNode.running(tmp_path_factory.mktemp("loaded"), access) as node,
    ):
        # The first commit loads the client of the object store.
        await node.commit(await node.containers(1, 1000))
        yield node


async def test_memory_has_a_bound_however_many_commits_there_are(loaded: LoadedNode, soak: Soak) -> None:
    sizes = soak.pick([8], [20, 100])
    number = soak.pick(12, 50)
    most, begun = 0, time.monotonic()
    for size in sizes:
        names = await loaded.containers(number // len(sizes), size * MIB)
        most = max(most, await loaded.peak(names))
        await loaded.remove(names)
    assert most <= _BESIDES + _LIMIT
    soak.record(
        Trial(
            chapter=Chapter.LOAD,
            subject="driver, commits",
            tried=f"{number} commits at once, of layers of {' and '.join(map(str, sizes))} MiB",
            times=number,
            losses={"commits that failed": 0},
            seen={
                "most memory of the driver, MB": round(most / 1e6),
                "bound, MB": round((_BESIDES + _LIMIT) / 1e6),
                "seconds for all of them": round(time.monotonic() - begun, 1),
            },
        )
    )
