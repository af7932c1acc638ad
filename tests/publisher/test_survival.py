"""Several publishers of one repository: whatever becomes of some of them, every layer is published exactly once."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from harness.postgresql import PostgresqlServer
from harness.seaweedfs import SeaweedFS
from services.common.archive.model import LayerArchive
from tests.support.object_stores import new_bucket
from tests.support.publisher import make_layer, upload
from tests.support.publisher_site import PublisherSite, hanging

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the one that the servers were started in

_LAYERS: Final = 12
"""Of each test."""
_numbers: Final = count()


@asynccontextmanager
async def _site(
    seaweedfs: SeaweedFS, postgresql: PostgresqlServer, directory: Path, publishers: int
) -> AsyncIterator[PublisherSite]:
    database = await postgresql.create(f"site_{uuid.uuid4().hex}")
    async with (
        new_bucket(seaweedfs.access) as bucket,
        PublisherSite.running(directory, bucket, (postgresql, database), publishers=publishers) as site,
    ):
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(
    seaweedfs: SeaweedFS, postgresql: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[PublisherSite]:
    """Two publishers."""
    async with _site(seaweedfs, postgresql, tmp_path_factory.mktemp("site"), 2) as site:
        yield site


async def _survives(site: PublisherSite, directory: Path, harm: Callable[[], Awaitable[None]]) -> None:
    """Have layers published, with something that happens in the middle."""
    archives = [make_layer(directory, f"layer-{next(_numbers)}") for _ in range(_LAYERS)]
    await upload(site.publishers[0].access, *archives)
    async with asyncio.TaskGroup() as group:
        group.create_task(site.announce(archives))
        await site.published(archives, least=1)
        await harm()
    await site.published(archives)
    await _judge(site, archives)


async def _judge(site: PublisherSite, archives: Sequence[LayerArchive]) -> None:
    assert await asyncio.to_thread(site.missing, archives) == []
    assert await asyncio.to_thread(site.problems) == []


async def test_the_one_that_leads_is_killed(site: PublisherSite, tmp_path: Path) -> None:
    async def harm() -> None:
        leader = await site.leader()
        await leader.kill()
        await site.leader(but=leader)

    await _survives(site, tmp_path, harm)


async def test_the_one_that_leads_hangs_for_longer_than_its_lease_and_goes_on(
    site: PublisherSite, tmp_path: Path
) -> None:
    async def harm() -> None:
        leader = await site.leader()
        async with hanging(leader):
            await site.leader(but=leader)

    await _survives(site, tmp_path, harm)


async def test_the_one_that_leads_is_cut_off_from_the_database_and_comes_back(
    site: PublisherSite, tmp_path: Path
) -> None:
    async def harm() -> None:
        leader = await site.leader()
        link = site.links[site.publishers.index(leader)]
        link.cut()
        try:
            await site.leader(but=leader)
        finally:
            await link.mend()

    await _survives(site, tmp_path, harm)


async def test_the_database_is_started_anew(site: PublisherSite, postgresql: PostgresqlServer, tmp_path: Path) -> None:
    await _survives(site, tmp_path, postgresql.restart)


async def test_two_of_five_hang_and_die_at_the_same_time(
    seaweedfs: SeaweedFS, postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    async with _site(seaweedfs, postgresql, tmp_path, 5) as site:

        async def harm() -> None:
            leader = await site.leader()
            async with hanging(leader):
                await (await site.leader(but=leader)).kill()

        await _survives(site, tmp_path, harm)
