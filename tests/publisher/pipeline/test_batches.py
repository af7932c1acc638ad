"""For how long a transaction is kept open for layers that are on their way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.common.layout import LayerLayout
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.metrics import Metrics
from services.publisher.pipeline.batches import BatchPublisher
from services.publisher.pipeline.failures import Failures, RetryTimes
from services.publisher.pipeline.outcomes import Outcomes
from services.publisher.pipeline.progress import Progress
from services.publisher.pipeline.units import ReadyLayer, Unit
from services.repository.directory.repository import DirectoryRepository
from tests.support.journal import claim, recorded
from tests.support.publisher import REPOSITORY, make_layer, verified


class _Slow(DirectoryRepository):
    """A repository whose transactions take a second to open."""

    @asynccontextmanager
    async def transaction(self, token: str) -> AsyncIterator[Any]:
        await asyncio.sleep(1)
        async with super().transaction(token) as transaction:
            yield transaction


async def _patience(directory: Path, kind: type[DirectoryRepository]) -> float:
    """Publish a layer; return the seconds for which another one would have been waited for."""
    waited: list[float] = []

    async def join(_batch: Sequence[Unit], patience: float) -> list[Unit]:
        waited.append(patience)
        return []

    with ThreadPoolExecutor(1) as threads:
        async with (
            Journal(SqliteDatabase(directory / "journal.sqlite")) as journal,
            kind(
                name=REPOSITORY, root=directory / "repository", layout=LayerLayout.FLAT, threads=threads
            ) as repository,
        ):
            metrics = Metrics()
            await repository.recover(())
            layer = verified(make_layer(directory, "one"))
            await journal.announce([layer.digest])
            await claim(journal, layer.digest)
            failures = Failures(journal=journal, metrics=metrics, times=RetryTimes(first=1, last=1), refused_images=0)
            batches = BatchPublisher(
                journal=journal,
                repository=repository,
                failures=failures,
                outcomes=Outcomes(journal=journal, failures=failures, metrics=metrics),
                progress=Progress(),
                turn=asyncio.Lock(),
            )
            record = await recorded(journal, layer.digest)
            await batches.publish([ReadyLayer(record, await repository.prepare(layer))], join)
            assert (await recorded(journal, layer.digest)).state is LayerState.PUBLISHED
    (patience,) = waited
    return patience


async def test_what_is_on_its_way_is_waited_for_at_least_a_little(tmp_path: Path) -> None:
    assert await _patience(tmp_path, DirectoryRepository) >= 0.3


async def test_what_is_on_its_way_is_waited_for_as_long_as_the_opening_took(tmp_path: Path) -> None:
    assert await _patience(tmp_path, _Slow) >= 1


async def test_nothing_is_waited_for_without_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.publisher.pipeline.batches._OPEN", 0.5)
    assert await _patience(tmp_path, _Slow) <= 0.5
