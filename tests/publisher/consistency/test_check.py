"""A check finds every disagreement between a real repository, journal and bucket, in memory that is bounded."""

import json
import shutil
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aiohttp

from harness.s3 import S3Access, s3_client
from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import layer_home
from services.common.object_store.model import StoredLayer
from services.publisher.consistency.check import CheckProgress, ConsistencyCheck
from services.publisher.consistency.model import Disagreement
from services.publisher.journal.journal import Journal
from services.publisher.journal.sqlite import SqliteDatabase
from services.repository.interface import ListedLayer, Publication, Repository, StoredImage
from tests.support.publisher import TOKEN, PublisherProcess, make_layer, upload

if TYPE_CHECKING:
    from services.common.object_store.store import ObjectStore

_BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def _check(publisher: PublisherProcess) -> list[dict[str, Any]]:
    async with (
        aiohttp.ClientSession(headers=_BEARER) as session,
        session.post(f"{publisher.url}/v1/check") as response,
    ):
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        return [json.loads(line) async for line in response.content]


def _run(publisher: PublisherProcess, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(publisher.state / "journal.sqlite")) as connection, connection:
        connection.execute(statement, parameters)
    connection.close()


async def _delete(access: S3Access, archive: LayerArchive) -> None:
    async with s3_client(access) as client:
        await client.delete_object(Bucket=access.bucket, Key=f"sha256/{archive.digest}")


async def test_every_disagreement_is_found_and_its_remedy_helps(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket, {"PUBLISHER_SWEEP_INTERVAL": "3600"})
    names = ("fine", "lost", "gone", "damaged", "unlinked", "forgotten", "failed", "absent", "replaced", "archive")
    layers = {name: make_layer(tmp_path, name) for name in names}
    await upload(bucket, *layers.values())
    async with publisher.running():
        await publisher.published(*layers.values())
        (summary,) = [line for line in await _check(publisher) if "progress" not in line]
        assert summary == {"summary": {"layers": len(names), "images": 0, "found": {}}}

        for name in ("lost", "gone"):
            (publisher.root / layer_home(layers[name].digest)).unlink()
        await _delete(bucket, layers["lost"])
        (publisher.root / layer_home(layers["damaged"].digest) / "layer.json").unlink()
        (publisher.root / layers["unlinked"].digest).unlink()
        _run(publisher, "DELETE FROM layers WHERE digest = ?", layers["forgotten"].digest)
        _run(publisher, "UPDATE layers SET state = 'failed' WHERE digest = ?", layers["failed"].digest)
        (publisher.root / layer_home(layers["absent"].digest)).unlink()
        await _delete(bucket, layers["absent"])
        _run(publisher, "UPDATE layers SET state = 'failed' WHERE digest = ?", layers["absent"].digest)
        async with s3_client(bucket) as client:
            await client.put_object(Bucket=bucket.bucket, Key=f"sha256/{layers['replaced'].digest}", Body=b"other")
        await _delete(bucket, layers["archive"])

        lines = [line for line in await _check(publisher) if "progress" not in line]
        found = {line["digest"]: line for line in lines if "digest" in line}
        kinds = {name: found.get(layers[name].digest, {}).get("kind") for name in names}
        assert kinds == {
            "fine": None,
            "lost": "lost",
            "gone": "not_in_repository",
            "damaged": "not_whole",
            "unlinked": "not_linked",
            "forgotten": "not_in_journal",
            "failed": "not_recorded",
            "absent": "not_in_bucket",
            "replaced": "other_object",
            "archive": "archive_gone",
        }
        assert lines[-1] == {
            "summary": {"layers": len(names), "images": 0, "found": Counter(filter(None, kinds.values()))}
        }
        assert found[layers["gone"].digest]["remedy"] == (
            "thinctl retry DIGEST publishes it again, thinctl check --retry all of them"
        )

        # What the remedies name, done.
        for name in ("lost", "absent"):
            await upload(bucket, layers[name])
        home = publisher.root / layer_home(layers["damaged"].digest)
        shutil.rmtree(home.resolve())
        for name in ("lost", "absent", "gone", "failed", "damaged"):
            (publisher.root / layers[name].digest).unlink(missing_ok=name != "failed")
            assert await publisher.retry(layers[name].digest) == 202
        await publisher.published(*(layers[name] for name in ("lost", "absent", "gone", "failed", "damaged")))


async def test_a_store_that_fails_ends_the_check_with_its_reason(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket, {"LAYER_STORE_RETRY_SECONDS": "0.1"})
    async with publisher.running():
        async with s3_client(bucket) as client:
            await client.delete_bucket(Bucket=bucket.bucket)
        *_, last = await _check(publisher)
        assert "there is no such bucket" in last["error"]


async def test_a_check_needs_the_token(publisher: PublisherProcess) -> None:
    async with (
        publisher.running(),
        aiohttp.ClientSession() as session,
        session.post(f"{publisher.url}/v1/check") as response,
    ):
        assert response.status == 401


_LAYERS = 25_000
"""Held in memory, they would take more than ten mebibytes."""


def _digest(number: int) -> Digest:
    return Digest(f"{number:08x}".ljust(64, "0"))


class _ManyLayers:
    """A store and a repository of very many layers, each of which misses some; what is listed is made on the way."""

    def __init__(self) -> None:
        self._numbers = range(0, 1 << 32, (1 << 32) // _LAYERS)[:_LAYERS]

    @property
    def digests(self) -> list[Digest]:
        return [_digest(number) for number in self._numbers]

    async def list_layers(self) -> AsyncIterator[StoredLayer]:
        now = datetime.now(UTC)
        for position, number in enumerate(self._numbers):
            if position % 1000 != 1:
                yield StoredLayer(digest=_digest(number), size=1, last_modified=now)

    async def head(self, digest: Digest) -> StoredLayer | None:
        present = (int(digest[:8], 16) // self._numbers.step) % 1000 != 1
        return StoredLayer(digest=digest, size=1, last_modified=datetime.now(UTC)) if present else None


class _ManyPublished(_ManyLayers):
    async def list_layers(self, shard: str) -> Sequence[ListedLayer]:  # type: ignore[override] # of a repository
        first = int(shard, 16) << 24
        step = self._numbers.step
        numbers = range(-(-first // step) * step, first + (1 << 24), step)
        return [
            ListedLayer(digest=_digest(number), whole=True, linked=True)
            for number in numbers
            if (number // step) % 1000 != 2 and number // step < _LAYERS
        ]

    async def list_images(self) -> Sequence[ImageName]:
        return ()

    async def list_flats(self) -> Sequence[Digest]:
        return ()

    async def list_stored(self) -> Sequence[StoredImage]:
        return ()

    async def lookup(self, digest: Digest) -> Publication | None:
        return None if (int(digest[:8], 16) // self._numbers.step) % 1000 == 2 else Publication(revision=None)


async def test_memory_does_not_depend_on_the_number_of_layers(tmp_path: Path) -> None:
    store, repository = _ManyLayers(), _ManyPublished()
    async with Journal(SqliteDatabase(tmp_path / "journal.sqlite")) as journal:
        await journal.announce(store.digests)
        with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection, connection:
            connection.execute("UPDATE layers SET state = 'published'")
        check = ConsistencyCheck(
            journal=journal, store=cast("ObjectStore", store), repository=cast("Repository", repository)
        )
        progress = CheckProgress()
        tracemalloc.start()
        try:
            async for _ in check.run(progress):
                pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert progress.layers == _LAYERS
    assert progress.found == {Disagreement.ARCHIVE_GONE: 25, Disagreement.NOT_IN_REPOSITORY: 25}
    assert peak < 3 << 20
