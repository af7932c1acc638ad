"""A publisher process: from what a store says to what a reader of the repository sees."""

import asyncio
import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.s3 import S3Access, s3_client
from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.publisher.settings import PublisherSettings
from tests.support.notifications import ceph_event, minio_event, seaweedfs_event
from tests.support.publisher import REPOSITORY, TOKEN, PublisherProcess, make_layer, upload


def _event(access: S3Access, *archives: LayerArchive) -> bytes:
    return ceph_event(access.bucket, *(f"sha256/{archive.digest}" for archive in archives))


def _visible(publisher: PublisherProcess, archive: LayerArchive) -> bool:
    return (publisher.root / archive.digest / "name").exists()


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


async def test_an_announced_layer_is_published(publisher: PublisherProcess, bucket: S3Access, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    async with publisher.running():
        await upload(bucket, archive)
        assert await publisher.announce(minio_event(bucket.bucket, f"sha256/{archive.digest}")) == 204
        layer = await publisher.becomes(archive.digest, "published")
        assert (layer["revision"], layer["reason"], layer["attempts"]) == (1, None, 0)
        assert (publisher.root / archive.digest / "name").read_text() == "one"
        assert list(publisher.spool.iterdir()) == []
        metrics = await publisher.metrics()
        assert metrics['publisher_layers{state="published"}'] == 1
        assert metrics["publisher_fetched_bytes_total"] == archive.size
        assert metrics["publisher_spool_bytes"] == 0


async def test_a_layer_that_nothing_announced_is_found_by_the_sweep_at_start(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    archives = [make_layer(tmp_path, str(number)) for number in range(3)]
    await upload(bucket, *archives)
    async with publisher.running():
        await publisher.published(*archives)
        assert (await publisher.metrics())["publisher_sweep_found_total"] == 3


async def test_a_lost_notification_is_made_good_by_the_next_sweep(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket, {"PUBLISHER_SWEEP_INTERVAL": "0.2"})
    archive = make_layer(tmp_path, "one")
    async with publisher.running():
        await upload(bucket, archive)
        await publisher.published(archive)


async def test_doubled_and_reordered_events_publish_each_layer_once(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    archives = [make_layer(tmp_path, str(number)) for number in range(6)]
    async with publisher.running():
        await upload(bucket, *archives)
        dialects = (minio_event, ceph_event, seaweedfs_event)
        bodies = [
            dialect(bucket.bucket, f"sha256/{archive.digest}") for archive in reversed(archives) for dialect in dialects
        ]
        assert set(await asyncio.gather(*map(publisher.announce, bodies * 3))) == {204}
        await publisher.published(*archives)
        assert set(await asyncio.gather(*map(publisher.announce, bodies))) == {204}
        metrics = await publisher.metrics()
        assert metrics["publisher_batch_layers_sum"] == 6
        assert metrics["publisher_fetched_bytes_total"] == sum(archive.size for archive in archives)
        await publisher.published(*archives)


async def test_an_event_may_come_before_its_upload_has_ended(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    async with publisher.running():
        assert await publisher.announce(_event(bucket, archive)) == 204
        layer = await publisher.becomes(archive.digest, "failed")
        assert (layer["reason"], layer["retryable"]) == ("the store does not hold the object", True)
        assert layer["next_attempt"] is not None
        await upload(bucket, archive)
        await publisher.published(archive)


async def test_a_forged_object_is_refused_and_never_unpacked(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    claimed, forged = make_layer(tmp_path, "claimed"), make_layer(tmp_path, "forged")
    await _put(bucket, claimed, body=forged.path.read_bytes())
    async with publisher.running():
        layer = await publisher.becomes(claimed.digest, "failed")
        assert f"has the sha256 {forged.digest}" in layer["reason"]
        assert (layer["retryable"], layer["next_attempt"]) == (False, None)
        assert (await publisher.metrics())['publisher_failures_total{reason="object"}'] == 1
        assert list(publisher.spool.iterdir()) == []


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
    "no-diff-id": "metadata does not name the repository, diff ID and uncompressed size",
    "no-repository": "metadata does not name the repository, diff ID and uncompressed size",
    "other-repository": "is for repository other.cern.ch, this publisher writes test.cern.ch",
    "no-name": "its metadata are not a layer's: not a repository name",
    "no-digest": "its metadata are not a layer's: not a sha256 digest",
}


async def test_objects_that_are_not_described_right_are_refused(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    archives = {name: make_layer(tmp_path, name) for name in _WRONG_METADATA}
    for name, metadata in _WRONG_METADATA.items():
        await _put(bucket, archives[name], metadata=metadata)
    async with publisher.running():
        for name, archive in archives.items():
            layer = await publisher.becomes(archive.digest, "failed")
            assert _WRONG_METADATA_REASONS[name] in layer["reason"]
            assert layer["retryable"] is False
        listed = (await publisher.get("/v1/layers?state=failed"))["layers"]
        assert {layer["digest"] for layer in listed} == {archive.digest for archive in archives.values()}
    assert not publisher.root.joinpath(".layers").exists()


async def test_a_poisoned_layer_fails_alone(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket)
    good = [make_layer(tmp_path, str(number)) for number in range(5)]
    whole = make_layer(tmp_path, "whole")
    whole.path.write_bytes(whole.path.read_bytes()[:-10])
    broken = replace(whole, digest=Digest(hashlib.sha256(whole.path.read_bytes()).hexdigest()))
    await upload(bucket, *good[:3])
    await _put(bucket, broken)
    await upload(bucket, *good[3:])
    async with publisher.running():
        await publisher.published(*good)
        layer = await publisher.becomes(broken.digest, "failed")
        assert "the archive is refused" in layer["reason"]
        assert layer["retryable"] is False
        assert (await publisher.metrics())['publisher_failures_total{reason="archive"}'] == 1


async def test_a_refused_layer_is_tried_again_when_it_is_asked_for(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    await _put(bucket, archive, metadata={"repository": "other.cern.ch"})
    async with publisher.running():
        await publisher.becomes(archive.digest, "failed")
        await _put(bucket, archive)
        assert await publisher.retry(archive.digest) == 202
        await publisher.published(archive)


async def test_a_published_layer_that_was_lost_is_published_again_when_it_is_asked_for(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    await upload(bucket, archive)
    async with publisher.running():
        await publisher.published(archive)
        (publisher.root / archive.digest).unlink()
        (publisher.root / ".layers" / archive.digest[:2] / archive.digest).unlink()
        assert await publisher.retry(archive.digest) == 202
        assert await publisher.published(archive) == [2]
        assert _visible(publisher, archive)


async def test_a_layer_that_is_in_the_repository_already_costs_nothing(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    await upload(bucket, archive)
    async with publisher.running():
        await publisher.published(archive)
    for file in publisher.state.iterdir():
        file.unlink()
    async with publisher.running():
        assert await publisher.published(archive) == [1]
        assert (await publisher.metrics())["publisher_fetched_bytes_total"] == 0


async def test_a_layer_larger_than_the_spool_and_the_batch_goes_alone(bucket: S3Access, tmp_path: Path) -> None:
    settings = {"PUBLISHER_SPOOL_LIMIT": "2000", "PUBLISHER_BATCH_SIZE": "1"}
    publisher = PublisherProcess(tmp_path / "publisher", bucket, settings)
    large = [make_layer(tmp_path, f"large-{number}", {"name": os.urandom(5000)}) for number in range(2)]
    small = [make_layer(tmp_path, f"small-{number}") for number in range(4)]
    await upload(bucket, *large, *small)
    async with publisher.running():
        revisions = await publisher.published(*large, *small)
    assert sorted(revision or 0 for revision in revisions) == [1, 2, 3, 4, 5, 6]


async def test_what_is_ready_goes_together(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket, {"PUBLISHER_BATCH_LAYERS": "8"})
    archives = [make_layer(tmp_path, str(number)) for number in range(32)]
    await upload(bucket, *archives)
    async with publisher.running():
        revisions = await publisher.published(*archives)
        assert (await publisher.metrics())["publisher_batch_layers_sum"] == 32
    assert 4 <= len(set(revisions)) < 32


async def _ended(settings: dict[str, str], *arguments: str) -> tuple[int | None, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PUBLISHER_", "LAYER_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.publisher",
        *arguments,
        env={**environment, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_what_keeps_it_from_starting_is_said_in_a_line(publisher: PublisherProcess) -> None:
    wrong = {"PUBLISHER_SWEEP_INTERVALL": "5", "PUBLISHER_HOST": "nowhere", "PUBLISHER_EVENT_TOKEN": "short"}
    status, output = await _ended({**publisher.environment, **wrong})
    assert (status, output.count("\n")) == (1, 1)
    assert "PUBLISHER_SWEEP_INTERVALL is not a setting: is PUBLISHER_SWEEP_INTERVAL meant?" in output
    assert "PUBLISHER_EVENT_TOKEN: Value error, has fewer than 16 characters" in output


async def test_an_address_that_cannot_be_listened_on_is_named(publisher: PublisherProcess) -> None:
    status, output = await _ended({**publisher.environment, "PUBLISHER_HOST": "192.0.2.1"})
    assert status == 1
    assert output.splitlines()[-1].startswith("the publisher ends: ")
    assert "192.0.2.1" in output
    assert "Traceback" not in output


async def test_the_help_documents_every_setting() -> None:
    status, output = await _ended({}, "--help")
    assert status == 0
    for name in (*PublisherSettings.model_fields, "event_token_file"):
        assert f"PUBLISHER_{name.upper()}" in output
    assert "LAYER_STORE_ENDPOINT" in output


async def test_the_token_may_be_in_a_file(bucket: S3Access, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    settings = {"PUBLISHER_EVENT_TOKEN": "", "PUBLISHER_EVENT_TOKEN_FILE": str(tmp_path / "token")}
    publisher = PublisherProcess(tmp_path / "publisher", bucket, settings)
    async with publisher.running():
        assert await publisher.announce(minio_event(bucket.bucket, "probe")) == 204
        assert await publisher.announce(minio_event(bucket.bucket, "probe"), token=f"{TOKEN}x") == 401
    assert TOKEN not in publisher.daemon.log.read_text()
