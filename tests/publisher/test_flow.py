"""A publisher process: from what a store says to what a reader of the repository sees."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from harness.s3 import S3Access, s3_client
from harness.seaweedfs import SeaweedFS
from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.layout import sidecar_path
from tests.support.notifications import ceph_event, minio_event, seaweedfs_event
from tests.support.object_stores import new_bucket
from tests.support.publisher import REPOSITORY, TOKEN, PublisherProcess, make_layer, upload

_PUBLISHED = 'publisher_layers{state="published"}'
_FETCHED = "publisher_fetched_bytes_total"


def _visible(publisher: PublisherProcess, archive: LayerArchive) -> bool:
    return (publisher.root / archive.digest / "name").exists()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def publisher(seaweedfs: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PublisherProcess]:
    """One publisher for all tests here, which reads its token from a file and does not sweep after its start."""
    directory = tmp_path_factory.mktemp("flow")
    (directory / "token").write_text(f"{TOKEN}\n")
    settings = {
        "PUBLISHER_EVENT_TOKEN": "",
        "PUBLISHER_EVENT_TOKEN_FILE": str(directory / "token"),
        "PUBLISHER_SWEEP_INTERVAL": "3600",
    }
    async with new_bucket(seaweedfs.access) as access:
        publisher = PublisherProcess(directory / "publisher", access, settings)
        async with publisher.running():
            yield publisher
    assert TOKEN not in publisher.daemon.log.read_text()


async def _announce(publisher: PublisherProcess, *archives: LayerArchive) -> None:
    keys = [f"sha256/{archive.digest}" for archive in archives]
    assert await publisher.announce(ceph_event(publisher.access.bucket, *keys)) == 204


async def _put(
    access: S3Access, archive: LayerArchive, *, body: bytes | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Store an object as somebody else would, with any content and any metadata."""
    described = {
        "diff-id": archive.diff_id,
        "uncompressed-size": str(archive.uncompressed_size),
        "repository": REPOSITORY,
    }
    described |= metadata or {}
    async with s3_client(access) as client:
        await client.put_object(
            Bucket=access.bucket,
            Key=f"sha256/{archive.digest}",
            Body=archive.path.read_bytes() if body is None else body,
            Metadata={name: value for name, value in described.items() if value},
        )


async def test_an_announced_layer_is_published(publisher: PublisherProcess, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    await upload(publisher.access, archive)
    before = await publisher.metrics()
    assert await publisher.announce(minio_event(publisher.access.bucket, f"sha256/{archive.digest}")) == 204
    layer = await publisher.becomes(archive.digest, "published")
    assert (layer["reason"], layer["attempts"]) == (None, 0)
    assert (publisher.root / ".batches" / str(layer["revision"]) / archive.digest).is_dir()
    assert (publisher.root / archive.digest / "name").read_text() == "one"
    after = await publisher.metrics()
    assert after[_PUBLISHED] == before[_PUBLISHED] + 1
    assert after[_FETCHED] == before[_FETCHED] + archive.size


async def test_the_token_of_the_file_is_the_one_that_counts(publisher: PublisherProcess) -> None:
    assert await publisher.announce(minio_event(publisher.access.bucket, "probe")) == 204
    assert await publisher.announce(minio_event(publisher.access.bucket, "probe"), token=f"{TOKEN}x") == 401


async def test_doubled_and_reordered_events_publish_each_layer_once(
    publisher: PublisherProcess, tmp_path: Path
) -> None:
    archives = [make_layer(tmp_path, str(number)) for number in range(6)]
    await upload(publisher.access, *archives)
    dialects = (minio_event, ceph_event, seaweedfs_event)
    bodies = [
        dialect(publisher.access.bucket, f"sha256/{archive.digest}")
        for archive in reversed(archives)
        for dialect in dialects
    ]
    before = await publisher.metrics()
    assert set(await asyncio.gather(*map(publisher.announce, bodies * 3))) == {204}
    await publisher.published(*archives)
    assert set(await asyncio.gather(*map(publisher.announce, bodies))) == {204}
    after = await publisher.metrics()
    assert after["publisher_batch_layers_sum"] == before["publisher_batch_layers_sum"] + 6
    assert after[_FETCHED] == before[_FETCHED] + sum(archive.size for archive in archives)
    await publisher.published(*archives)


async def test_an_event_may_come_before_its_upload_has_ended(publisher: PublisherProcess, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    await _announce(publisher, archive)
    layer = await publisher.becomes(archive.digest, "failed")
    assert (layer["reason"], layer["retryable"]) == ("the store does not hold the object", True)
    assert layer["next_attempt"] is not None
    await upload(publisher.access, archive)
    await publisher.published(archive)


async def test_a_forged_object_is_refused_and_leaves_nothing(publisher: PublisherProcess, tmp_path: Path) -> None:
    claimed, forged = make_layer(tmp_path, "claimed"), make_layer(tmp_path, "forged")
    await _put(publisher.access, claimed, body=forged.path.read_bytes())
    await _announce(publisher, claimed)
    layer = await publisher.becomes(claimed.digest, "failed")
    assert f"has the digest {forged.digest}" in layer["reason"]
    assert (layer["retryable"], layer["next_attempt"]) == (False, None)
    assert (await publisher.metrics())['publisher_failures_total{reason="digest"}'] >= 1
    assert not (publisher.spool / claimed.digest).exists()
    assert not (publisher.root / claimed.digest).exists()


_WRONG_METADATA = {
    "diff-id": {"diff-id": "0" * 64},
    "size": {"uncompressed-size": "1"},
    "no-diff-id": {"diff-id": ""},
    "no-repository": {"repository": ""},
    "other-repository": {"repository": "other.cern.ch"},
    "no-name": {"repository": "../../etc"},
    "no-digest": {"diff-id": "x"},
}
_WRONG_METADATA_REASONS = {
    "diff-id": f"announced was {'0' * 64}",
    "size": "uncompressed size",
    "no-diff-id": "metadata does not name the repository and the diff ID",
    "no-repository": "metadata does not name the repository and the diff ID",
    "other-repository": "is for repository other.cern.ch, this publisher writes test.cern.ch",
    "no-name": "its metadata are not a layer's: not a repository name",
    "no-digest": "its metadata are not a layer's: not a sha256 digest",
}


async def test_objects_that_are_not_described_right_are_refused(publisher: PublisherProcess, tmp_path: Path) -> None:
    archives = {name: make_layer(tmp_path, name) for name in _WRONG_METADATA}
    for name, metadata in _WRONG_METADATA.items():
        await _put(publisher.access, archives[name], metadata=metadata)
    await _announce(publisher, *archives.values())
    for name, archive in archives.items():
        layer = await publisher.becomes(archive.digest, "failed")
        assert _WRONG_METADATA_REASONS[name] in layer["reason"]
        assert layer["retryable"] is False
    listed = (await publisher.get("/v1/layers?state=failed"))["layers"]
    assert {layer["digest"] for layer in listed} >= {archive.digest for archive in archives.values()}
    assert not any((publisher.root / archive.digest).exists() for archive in archives.values())


async def test_the_uncompressed_size_need_not_be_known_beforehand(publisher: PublisherProcess, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "streamed")
    await _put(publisher.access, archive, metadata={"uncompressed-size": ""})
    await _announce(publisher, archive)
    await publisher.published(archive)
    sidecar = publisher.root / sidecar_path(archive.digest)
    assert json.loads(sidecar.read_text())["uncompressed_size"] == archive.uncompressed_size


async def test_a_poisoned_layer_fails_alone(publisher: PublisherProcess, tmp_path: Path) -> None:
    good = [make_layer(tmp_path, str(number)) for number in range(5)]
    whole = make_layer(tmp_path, "whole")
    whole.path.write_bytes(whole.path.read_bytes()[:-10])
    broken = replace(whole, digest=Digest(hashlib.sha256(whole.path.read_bytes()).hexdigest()))
    await upload(publisher.access, *good)
    await _put(publisher.access, broken)
    await _announce(publisher, *good[:3], broken, *good[3:])
    await publisher.published(*good)
    layer = await publisher.becomes(broken.digest, "failed")
    assert "the archive is refused" in layer["reason"]
    assert layer["retryable"] is False
    assert (await publisher.metrics())['publisher_failures_total{reason="archive"}'] >= 1


async def test_a_refused_layer_is_tried_again_when_it_is_asked_for(publisher: PublisherProcess, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    await _put(publisher.access, archive, metadata={"repository": "other.cern.ch"})
    await _announce(publisher, archive)
    await publisher.becomes(archive.digest, "failed")
    await _put(publisher.access, archive)
    assert await publisher.retry(archive.digest) == 202
    await publisher.published(archive)


async def test_a_published_layer_that_was_lost_is_published_again_when_it_is_asked_for(
    publisher: PublisherProcess, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    await upload(publisher.access, archive)
    await _announce(publisher, archive)
    (first,) = await publisher.published(archive)
    assert first is not None
    (publisher.root / archive.digest).unlink()
    (publisher.root / ".layers" / archive.digest[:2] / archive.digest).unlink()
    assert await publisher.retry(archive.digest) == 202
    assert await publisher.published(archive) == [first + 1]
    assert _visible(publisher, archive)
