"""Publishers that share a journal and a repository in a bucket bring a layer once, whoever of them is late."""

from asyncio import Lock
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from harness.postgresql import PostgresqlServer
from harness.s3 import S3Access
from services.common.database.expressions import given
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState
from services.publisher.journal.postgresql import PostgresqlDatabase
from services.publisher.journal.tables import publishers
from services.publisher.metrics import Metrics
from services.publisher.pipeline.batches import BatchPublisher
from services.publisher.pipeline.failures import Failures, RetryTimes
from services.publisher.pipeline.outcomes import Outcomes
from services.publisher.pipeline.progress import Progress
from services.publisher.pipeline.units import ReadyLayer, Unit
from services.repository.interface import PreparedLayer
from services.repository.native.repository import NativeRepository
from services.repository.native.trust.keyring import KeyFiles
from tests.support.bucket_site import BucketSite
from tests.support.journal import claim, layer_record, recorded
from tests.support.native import NATIVE_NAME
from tests.support.publisher import make_layer, verified

_BACK = update(publishers).values(lease_until=0).where(publishers.c.id == given("gone"))


@dataclass(frozen=True)
class Peer:
    """One of the publishers."""

    journal: Journal
    repository: NativeRepository
    batches: BatchPublisher

    async def publish(self, layer: PreparedLayer) -> None:
        """Publish a layer that this one has prepared, and believes to have claimed."""
        record = layer_record(layer.layer.digest, LayerState.VERIFIED)
        await self.batches.publish([ReadyLayer(record, layer)], _nothing_joins)
        await self.repository.discard(layer)


async def _nothing_joins(_batch: Sequence[Unit], _seconds: float) -> list[Unit]:
    return []


@pytest.fixture
async def peers(
    postgresql: PostgresqlServer, empty_database: str, bucket: S3Access, tmp_path: Path
) -> AsyncIterator[tuple[Peer, Peer]]:
    """Two publishers of a new repository."""
    keys = KeyFiles(tmp_path / "keys", NATIVE_NAME)
    keys.complete(now=datetime.now(UTC))
    first = BucketSite(access=bucket, keys=keys, state=tmp_path / "first")
    first.create()
    async with AsyncExitStack() as stack:
        found = list[Peer]()
        for site in (first, replace(first, state=tmp_path / "second")):
            database = PostgresqlDatabase(empty_database, password=postgresql.password)
            journal = await stack.enter_async_context(Journal(database, alone=False))
            await journal.publishers.enter(name=site.state.name)
            repository = await stack.enter_async_context(site.opened())
            metrics = Metrics()
            failures = Failures(journal=journal, metrics=metrics, times=RetryTimes(first=1, last=1), refused_images=0)
            batches = BatchPublisher(
                journal=journal,
                repository=repository,
                failures=failures,
                outcomes=Outcomes(journal=journal, failures=failures, metrics=metrics),
                progress=Progress(),
                turn=Lock(),
            )
            found.append(Peer(journal, repository, batches))
        one, two = found
        yield one, two


async def test_a_layer_is_published_once_whoever_is_late(
    peers: tuple[Peer, Peer], postgresql: PostgresqlServer, empty_database: str, tmp_path: Path
) -> None:
    late, other = peers
    first, second = make_layer(tmp_path, "first"), make_layer(tmp_path, "second")
    await late.journal.announce([first.digest, second.digest])
    await claim(late.journal, first.digest, second.digest)
    prepared = [await late.repository.prepare(verified(layer)) for layer in (first, second)]
    async with PostgresqlDatabase(empty_database, password=postgresql.password) as database:
        await database.run(_BACK, gone=late.journal.publisher)
    assert (await other.journal.publishers.renew()).abandoned
    await other.journal.publishers.take_over()
    await claim(other.journal, first.digest, second.digest)
    # The late one has lost both, and begins no transaction for what it had.
    await late.publish(prepared[0])
    assert await late.repository.lookup(first.digest) is None
    taken = [await other.repository.prepare(verified(layer)) for layer in (first, second)]
    await other.publish(taken[0])
    published = await recorded(other.journal, first.digest)
    assert (published.state, published.revision) == (LayerState.PUBLISHED, 2)
    # It was in the middle of the transaction of the second one, and has published it all the same.
    async with late.repository.transaction("token") as transaction:
        await transaction.add(prepared[1])
        assert await transaction.publish() == 3
    await other.publish(taken[1])
    found = await recorded(other.journal, second.digest)
    assert (found.state, found.reason, found.claimed_by) == (LayerState.PUBLISHED, None, None)
    # Nobody has made a revision for it once more.
    async with other.repository.transaction("token") as transaction:
        await transaction.add(await other.repository.prepare(verified(make_layer(tmp_path, "third"))))
        assert await transaction.publish() == 4
