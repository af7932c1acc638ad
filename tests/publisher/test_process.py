"""A publisher process of one's own: how it starts, what it finds, and how much it takes at a time."""

import asyncio
import os
import sys
from pathlib import Path

from harness.processes import wait_until
from harness.s3 import S3Access, s3_client
from services.publisher.settings import PublisherSettings
from tests.support.fault_proxy import Answer, Fault, FaultProxy
from tests.support.publisher import PublisherProcess, make_layer, upload


async def test_layers_that_nothing_announced_are_found_by_sweeps(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket, {"PUBLISHER_SWEEP_INTERVAL": "0.2"})
    before = [make_layer(tmp_path, str(number)) for number in range(3)]
    lost = make_layer(tmp_path, "lost")
    await upload(bucket, *before)
    async with publisher.running():
        await publisher.published(*before)
        await upload(bucket, lost)
        await publisher.published(lost)
        assert (await publisher.metrics())["publisher_sweep_found_total"] == 4


async def test_sweeps_abort_uploads_that_were_abandoned(bucket: S3Access, tmp_path: Path) -> None:
    """What a driver leaves that is killed in the middle of a commit's upload."""
    key = f"sha256/{'ab' * 32}"
    async with FaultProxy.before(bucket.endpoint, Fault(r"\?uploads", answer=Answer(403, "AccessDenied"))) as proxy:
        settings = {"LAYER_STORE_ENDPOINT": proxy.endpoint, "PUBLISHER_SWEEP_INTERVAL": "0.3"}
        publisher = PublisherProcess(tmp_path / "publisher", bucket, settings)
        async with s3_client(bucket) as client:
            await client.create_multipart_upload(Bucket=bucket.bucket, Key=key)
            async with publisher.running():
                archive = make_layer(tmp_path, "one")
                await upload(bucket, archive)
                # Sweeps go on when the store once does not let them do this.
                await publisher.published(archive)

                async def looked() -> bool:
                    return proxy.seen(r"\?uploads") >= 3

                await wait_until(looked, what="the uploads have been looked at")
                # A young upload may still be under way.
                assert len((await client.list_multipart_uploads(Bucket=bucket.bucket)).get("Uploads", ())) == 1
                assert (await publisher.metrics())['publisher_failures_total{reason="abandoned uploads"}'] == 1
            publisher.daemon.env["PUBLISHER_UPLOAD_LIFETIME"] = "0.1"
            async with publisher.running():

                async def aborted() -> bool:
                    return (await publisher.metrics())["publisher_uploads_aborted_total"] == 1

                await wait_until(aborted, what="the upload is aborted")
            assert (await client.list_multipart_uploads(Bucket=bucket.bucket)).get("Uploads", ()) == ()


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
