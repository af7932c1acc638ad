"""For how long something has been named by nothing is counted by whichever publisher leads, and by nobody else."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import HttpUrl, SecretStr

from services.common.digest import Digest
from services.common.layout import LayerLayout
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.store import ObjectStore
from services.publisher.collection.collector import CollectionRules, LayerCollector
from services.publisher.journal.journal import Journal
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.journal.versions import AddedLayer
from services.publisher.metrics import Metrics
from services.publisher.pipeline.flights import Flights
from services.publisher.pipeline.gate import Gate
from services.repository.directory.repository import DirectoryRepository
from tests.support.journal import numbered
from tests.support.publisher import REPOSITORY

_DAY = 86400.0
_NOWHERE = ObjectStoreSettings(
    endpoint=HttpUrl("http://127.0.0.1:9"), access_key=SecretStr("key"), secret_key=SecretStr("secret")
)


async def _seen(journal: Journal, seconds: float) -> list[Digest]:
    """Return what has been seen unnamed for so many seconds."""
    return [layer.digest for layer in await journal.unnamed.due(after=0, seen=seconds, limit=10)]


async def test_only_the_time_counts_for_which_a_publisher_leads(tmp_path: Path) -> None:
    now = 1000.0
    with ThreadPoolExecutor(1) as threads:
        async with Journal(SqliteDatabase(tmp_path / "journal.sqlite")) as journal:
            collector = LayerCollector(
                journal=journal,
                repository=DirectoryRepository(
                    name=REPOSITORY, root=tmp_path / "repository", layout=LayerLayout.FLAT, threads=threads
                ),
                flights=Flights(),
                gate=Gate(journal),
                turn=asyncio.Lock(),
                recovered=asyncio.Event(),
                store=ObjectStore(settings=_NOWHERE),
                rules=CollectionRules(after=0, limit=10, interval=0),
                metrics=Metrics(),
                monotonic=lambda: now,
            )
            await journal.versions.added([AddedLayer(digest=numbered(1), archive_size=10, tree_size=20)], revision=1)
            await journal.unnamed.look(0)
            now += 10 * _DAY
            done = await collector.collect(dry_run=True)
            assert [layer.digest for layer in done.layers] == [numbered(1)]
            assert await _seen(journal, 1) == []
            leading = asyncio.create_task(collector.run())
            await asyncio.sleep(0)  # so that it has begun
            now += 5
            await collector.look()
            leading.cancel()
            assert await _seen(journal, 5) == [numbered(1)]
            assert await _seen(journal, 6) == []
