import asyncio
import json
from pathlib import Path

import pytest

from harness.processes import DaemonError
from harness.s3 import create_bucket, remove_bucket, s3_client
from harness.seaweedfs import SeaweedFS
from tests.support.webhook import Webhook

KEY = "sha256/" + "a" * 64


async def test_an_upload_is_announced_with_the_token_and_its_parts_are_not(tmp_path: Path) -> None:
    server = SeaweedFS(tmp_path / "server")
    async with Webhook.listen() as webhook:
        server.announce_to(f"{webhook.url}/v1/events", "the-token")
        await server.start()
        try:
            await server.kill()
            await server.start()  # it goes on announcing
            async with s3_client(server.access) as client:
                upload = await client.create_multipart_upload(Bucket=server.bucket, Key=KEY)
                target = {"Bucket": server.bucket, "Key": KEY, "UploadId": upload["UploadId"]}
                part = await client.upload_part(**target, PartNumber=1, Body=b"layer")
                parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
                await client.complete_multipart_upload(**target, MultipartUpload=parts)

            event = await webhook.next()
        finally:
            await server.kill()

    assert event.path == "/v1/events"
    assert event.authorization == "Bearer the-token"
    assert json.loads(event.body)["event_type"] == "create"
    assert json.loads(event.body)["key"] == f"/buckets/layers/{KEY}"
    assert webhook.received.empty()


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_ended_starts_again_with_its_objects_at_its_port(tmp_path: Path, end: str) -> None:
    server = SeaweedFS(tmp_path / "server")
    await server.start()
    try:
        endpoint = server.endpoint
        async with s3_client(server.access) as client:
            await client.put_object(Bucket=server.bucket, Key=KEY, Body=b"layer")
        await getattr(server, end)()
        await server.start()

        async with s3_client(server.access) as client:
            assert (await client.head_object(Bucket=server.bucket, Key=KEY))["ContentLength"] == 5
        assert server.endpoint == endpoint
    finally:
        await server.kill()


async def test_a_bucket_that_is_removed_takes_its_objects_and_their_volumes_along(tmp_path: Path) -> None:
    server = SeaweedFS(tmp_path / "server")
    await server.start()
    try:
        async with s3_client(server.access) as client:
            assert await create_bucket(client, "other")
            await client.put_object(Bucket="other", Key=KEY, Body=b"layer" * 10_000)
            kept = list((tmp_path / "server/data").glob("other_*.dat"))
            await remove_bucket(client, "other")
            buckets = await client.list_buckets()
    finally:
        await server.kill()

    assert kept
    assert [bucket["Name"] for bucket in buckets["Buckets"]] == ["layers"]
    assert not [path for path in kept if path.exists()]


async def test_it_listens_on_the_loopback_interface_only_and_leaves_nothing_outside(tmp_path: Path) -> None:
    server = SeaweedFS(tmp_path / "server")
    await server.start()
    try:
        listing = await asyncio.create_subprocess_exec("ss", "-Hlnp", stdout=asyncio.subprocess.PIPE)
        output, _ = await listing.communicate()
        addresses = [line.split()[4] for line in output.decode().splitlines() if f"pid={server.pid}," in line]
    finally:
        await server.kill()

    paths = [Path(address) for address in addresses if address.startswith("/")]
    ports = [address for address in addresses if not address.startswith("/")]
    assert paths
    assert ports
    assert all(address.startswith("127.0.0.1:") for address in ports)
    assert not [path for path in paths if path.exists() and not path.is_relative_to(tmp_path)]


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    with pytest.raises((DaemonError, OSError), match="data"):
        await SeaweedFS(tmp_path).start()
