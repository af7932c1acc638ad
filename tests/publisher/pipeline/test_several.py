"""Publishers that share a journal and a repository in a bucket: whoever of them is late, or dies, harms no other.

A layer is brought once, and none is taken out that an image needs.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from harness.postgresql import PostgresqlServer
from harness.processes import wait_until
from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.database.expressions import given
from services.common.digest import Digest
from services.common.image_outputs import FlatOutput, ImageOutputs
from services.common.object_store.store import ObjectStore
from services.publisher.collection.collector import CollectionRules, LayerCollector
from services.publisher.journal.image_model import ImageRecord, ImageVersion, ImageWish, PlatformImage, VersionLayer
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState
from services.publisher.journal.postgresql import PostgresqlDatabase
from services.publisher.journal.tables import publishers
from services.publisher.journal.versions import AddedLayer
from services.publisher.metrics import Metrics
from services.publisher.pipeline.batches import BatchPublisher
from services.publisher.pipeline.failures import Failures, RetryTimes
from services.publisher.pipeline.flights import Flights
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.images.documents import documents_of
from services.publisher.pipeline.outcomes import Outcomes
from services.publisher.pipeline.progress import Progress
from services.publisher.pipeline.units import ReadyImage, ReadyLayer, ReadyRemoval, Unit
from services.repository.interface import PreparedLayer, Transaction
from services.repository.native.repository import NativeRepository
from services.repository.native.trust.keyring import KeyFiles
from tests.support.bucket_site import BucketSite
from tests.support.images import image_of_layers
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
    collector: LayerCollector

    async def publish(self, layer: PreparedLayer) -> None:
        """Publish a layer that this one has prepared, and believes to have claimed."""
        record = layer_record(layer.layer.digest, LayerState.VERIFIED)
        await self.batches.publish([ReadyLayer(record, layer)], _nothing_joins)
        await self.repository.discard(layer)

    async def resolve(self, version: ImageVersion) -> ImageRecord:
        """Claim an image that is asked for."""
        wish = ImageWish(
            name=version.name,
            reference=version.reference,
            digest=version.digest,
            platforms=version.platforms,
            outputs=version.outputs,
        )
        await self.journal.images.ask(wish)
        record = await self._claimed()
        assert await self.journal.versions.resolved(record, version, seconds=0)
        return record

    async def publish_image(self, version: ImageVersion, layer: LayerArchive) -> None:
        """Publish an image, and its only layer with it."""
        prepared = await self.repository.prepare(verified(layer))
        await self.batches.publish([ReadyImage(await self.resolve(version), version, [prepared])], _nothing_joins)
        await self.journal.images.release([version.name])
        await self.repository.discard(prepared)

    async def remove_image(self, version: ImageVersion) -> None:
        """Remove an image."""
        await self.journal.images.remove(version.name, keep=0)
        await self.batches.publish([ReadyRemoval(await self._claimed())], _nothing_joins)
        await self.journal.images.release([version.name])

    async def _claimed(self) -> ImageRecord:
        record = await self.journal.images.claim(busy=(), full=())
        assert record is not None
        return record


def _version(name: str, layer: LayerArchive) -> ImageVersion:
    """Make an image of one layer that has a flat image as well, the same one whatever its name is."""
    outputs = ImageOutputs(flat=FlatOutput())
    documents = image_of_layers(name, ("amd64", [layer]), outputs=outputs)
    files = {path: content for path, content in documents.files.items() if not path.endswith("/image.json")}
    manifest, config = (
        Digest(hashlib.sha256(files[f"{documents.name.path}/{file}.json"]).hexdigest())
        for file in ("manifest", "config")
    )
    described = (VersionLayer(layer.digest, layer.diff_id, layer.size),)
    return ImageVersion(
        name=documents.name,
        digest=manifest,
        reference=name,
        platforms=("linux/amd64",),
        images=(PlatformImage("linux/amd64", manifest, config, described),),
        documents=files,
        verified=None,
        outputs=outputs,
    )


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
            metrics, turn = Metrics(), asyncio.Lock()
            failures = Failures(journal=journal, metrics=metrics, times=RetryTimes(first=1, last=1), refused_images=0)
            batches = BatchPublisher(
                journal=journal,
                repository=repository,
                failures=failures,
                outcomes=Outcomes(journal=journal, failures=failures, metrics=metrics),
                progress=Progress(),
                turn=turn,
            )
            recovered = asyncio.Event()
            recovered.set()
            collector = LayerCollector(
                journal=journal,
                repository=repository,
                flights=Flights(),
                gate=Gate(journal),
                turn=turn,
                recovered=recovered,
                store=ObjectStore(settings=bucket.settings),
                rules=CollectionRules(after=0, limit=10, interval=0),
                metrics=metrics,
            )
            found.append(Peer(journal, repository, batches, collector))
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


async def test_what_another_publisher_s_image_has_by_now_is_not_collected(
    peers: tuple[Peer, Peer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collecting, other = peers
    layer = make_layer(tmp_path, "unnamed")
    former, again = _version("quay.io/ns/former:1", layer), _version("quay.io/ns/again:1", layer)
    await other.publish_image(former, layer)
    await other.remove_image(former)
    await collecting.journal.unnamed.look(0)
    await collecting.journal.flats.look()
    chosen = await collecting.collector.collect(dry_run=True)
    assert [each.digest for each in chosen.layers] == [layer.digest]
    assert {each.config for each in chosen.flats} == set(again.flats)
    transaction = collecting.repository.transaction

    @asynccontextmanager
    async def overtaken(token: str) -> AsyncIterator[Transaction]:
        assert await other.journal.images.enter(await other.resolve(again))
        async with other.repository.transaction("token") as opened:
            await opened.put_image(documents_of(again, now=0))
            assert await opened.publish() == 4
        # Which it has not recorded yet.
        async with transaction(token) as opened:
            yield opened

    monkeypatch.setattr(collecting.repository, "transaction", overtaken)
    done = await collecting.collector.collect(dry_run=False)
    assert (done.layers, done.flats, done.revision) == ([], [], None)
    assert await other.repository.lookup(layer.digest) is not None
    assert set(await other.repository.flats_of(again.name)) == again.flats


async def test_what_a_publisher_has_collected_that_died_is_recorded_by_another_one(
    peers: tuple[Peer, Peer], tmp_path: Path
) -> None:
    dying, other = peers
    layers = [make_layer(tmp_path, name) for name in ("gone", "kept")]
    prepared = [await dying.repository.prepare(verified(layer)) for layer in layers]
    async with dying.repository.transaction("token") as transaction:
        for each in prepared:
            await transaction.add(each)
        await transaction.publish()
    gone, kept = digests = [layer.digest for layer in layers]
    added = [AddedLayer(digest=digest, archive_size=10, tree_size=20) for digest in digests]
    await dying.journal.versions.added(added, revision=2)

    async def waits() -> bool:
        return bool(await other.journal.transactions())

    async with dying.repository.transaction("token") as transaction:
        assert await dying.journal.unnamed.claim(digests) == sorted(digests)
        # Whoever starts meanwhile does not take what it finds for what was left.
        recovering = asyncio.create_task(other.collector.recover())
        await wait_until(waits, what="the other one waits for the end of the transaction")
        assert await other.journal.unnamed.interrupted() != []
        await transaction.remove_layer(gone)
        await transaction.publish()
    await recovering
    assert await other.journal.get(gone) is None
    assert (await recorded(other.journal, kept)).state is LayerState.PUBLISHED
    assert await other.journal.unnamed.interrupted() == []
    # Whoever brings it again before the late one comes back has not brought it in vain.
    await other.journal.versions.added(added[:1], revision=4)
    await dying.journal.unnamed.collected([gone])
    assert (await recorded(other.journal, gone)).revision == 4
