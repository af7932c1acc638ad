"""Journal and bucket come back from back-ups of different moments: nothing is lost, and what is to be done is told."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from harness.postgresql import PostgresqlServer
from harness.processes import wait_until
from harness.s3 import S3Access, s3_client
from services.common.archive.model import LayerArchive
from services.repository.native.trust.keyring import KeyFiles
from services.thinctl import commands
from tests.support.bucket_site import BucketSite
from tests.support.object_stores import new_bucket
from tests.support.publisher import REPOSITORY, TOKEN, PublisherProcess, make_layer, upload


class _Site:
    """A native repository and its layers in one bucket, and publishers of it with their journal in PostgreSQL."""

    def __init__(self, directory: Path, server: PostgresqlServer) -> None:
        self._directory = directory
        self._server = server
        self.keys = KeyFiles(directory / "keys", REPOSITORY)

    def create(self, bucket: S3Access) -> None:
        self._repository(bucket).create()

    def publisher(self, machine: str, bucket: S3Access, journal: str) -> PublisherProcess:
        settings = {
            "PUBLISHER_DATABASE": journal,
            "PUBLISHER_DATABASE_PASSWORD_FILE": str(self._server.password_file),
            "PUBLISHER_REPOSITORY_KIND": "native",
            "PUBLISHER_KEYS": str(self._directory / "keys"),
            "PUBLISHER_DIRECTORY": "",
            "PUBLISHER_SWEEP_INTERVAL": "0.2",
            "REPOSITORY_STORE_PREFIX": self._repository(bucket).prefix,
            **bucket.repository_environment,
        }
        return PublisherProcess(self._directory / machine, bucket, settings)

    def _repository(self, bucket: S3Access) -> BucketSite:
        return BucketSite(access=bucket, keys=self.keys, state=self._directory / "reader", name=REPOSITORY)

    def read(self, bucket: S3Access, *layers: LayerArchive) -> tuple[int, list[bytes | None]]:
        """Check the whole repository; return its revision, and the file of each layer that a client would see."""
        repository = self._repository(bucket)
        assert repository.problems() == []
        return repository.revision(), repository.read_all(layers, "name")


@pytest.fixture
def site(tmp_path: Path, bucket: S3Access, postgresql: PostgresqlServer) -> _Site:
    found = _Site(tmp_path, postgresql)
    found.create(bucket)
    return found


async def _check(publisher: PublisherProcess) -> Mapping[str, str]:
    """Compare repository, journal and bucket; return what is wrong with which layer."""
    checked = await commands.check(_access(publisher))
    return {item.digest: kind for kind, items in checked.found.items() for item in items}


def _access(publisher: PublisherProcess) -> commands.Access:
    return commands.Access(url=publisher.url, token=SecretStr(TOKEN))


async def _uploaded_while_paused(publisher: PublisherProcess, layer: LayerArchive) -> None:
    """Let a layer be known, and wait."""
    assert await publisher.post("/v1/publishing/pause") == 200
    await upload(publisher.access, layer)

    async def known() -> bool:
        return bool((await publisher.layer(layer.digest)).get("state"))

    await wait_until(known, what="a sweep finds the layer")


async def _copy(bucket: S3Access, copy: S3Access) -> None:
    async with s3_client(bucket) as client:
        async for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket.bucket):
            for item in page["Contents"]:
                source = {"Bucket": bucket.bucket, "Key": item["Key"]}
                await client.copy_object(Bucket=copy.bucket, Key=item["Key"], CopySource=source)


async def test_a_journal_that_is_older_than_the_bucket_learns_what_was_published_since(
    site: _Site, bucket: S3Access, postgresql: PostgresqlServer, new_database: str, tmp_path: Path
) -> None:
    before, waiting, after = (make_layer(tmp_path, name) for name in ("before", "waiting", "after"))
    first = site.publisher("first", bucket, new_database)
    async with first.ended():
        await first.start()
        await upload(bucket, before)
        await first.published(before)
        await _uploaded_while_paused(first, waiting)
        await postgresql.dump(new_database.rpartition("/")[2], tmp_path / "journal.dump")
        assert await first.post("/v1/publishing/resume") == 200
        await upload(bucket, after)
        await first.published(waiting, after)
        await first.kill()
    former = site.read(bucket, before, waiting, after)

    restored = await postgresql.restore(tmp_path / "journal.dump", database=f"restored_{new_database[-32:]}")
    async with site.publisher("second", bucket, restored).running() as second:
        assert await second.post("/v1/publishing/resume") == 200  # the pause is part of the journal
        await second.published(before, waiting, after)
        assert await _check(second) == {}
    # What is there has not been published again.
    assert site.read(bucket, before, waiting, after) == former


async def test_a_bucket_that_is_older_than_the_journal_gets_what_was_published_since(
    site: _Site, bucket: S3Access, new_database: str, tmp_path: Path
) -> None:
    before, waiting, after = (make_layer(tmp_path, name) for name in ("before", "waiting", "after"))
    former = site.publisher("first", bucket, new_database)
    async with new_bucket(bucket) as copy:
        async with former.ended():
            await former.start()
            await upload(bucket, before)
            await former.published(before)
            await _uploaded_while_paused(former, waiting)
            await _copy(bucket, copy)
            assert await former.post("/v1/publishing/resume") == 200
            await upload(bucket, after)
            await former.published(waiting, after)
            await former.kill()
        lost, _ = site.read(bucket)
        assert site.read(copy, before, waiting, after)[1] == [b"before", None, None]

        # Its own state would know which revisions clients have seen; that is lost as well.
        async with site.publisher("second", copy, new_database).running() as publisher:
            assert await _check(publisher) == {waiting.digest: "not_in_repository", after.digest: "lost"}
            await upload(copy, after)
            assert await _check(publisher) == dict.fromkeys((waiting.digest, after.digest), "not_in_repository")
            # thinctl check --retry
            checked = await commands.check(_access(publisher))
            assert await commands.retry_found(_access(publisher), checked) == 2
            revisions = await publisher.published(waiting, after)
            assert all(revision is not None and revision > lost for revision in revisions)
            assert await _check(publisher) == {}
        _, contents = site.read(copy, before, waiting, after)
        assert contents == [b"before", b"waiting", b"after"]
