"""From a push to a real registry, by its webhook and cosign's signature, to what the publisher is asked for."""

import asyncio
import json
from pathlib import Path

from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from harness.ports import free_ports
from harness.processes import wait_until
from services.converter.factory import build_converter
from services.converter.settings import ConverterSettings
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from tests.support.cosign import Cosign
from tests.support.image_publisher import ImagePublisher
from tests.support.oci import write_image
from tests.support.registries import RegistryServer, impatient
from tests.support.tars import archive, member

_SECRET = "of-the-webhook-0123456789"  # noqa: S105 - of a test


async def test_what_is_pushed_is_asked_for_once_it_is_signed(tmp_path: Path) -> None:
    cosign = Cosign(tmp_path)
    await cosign.make_key("release")
    write_image(tmp_path / "image", (archive(member(b"file", b"content")),), tag="v1")
    (port,) = free_ports(1)
    endpoint = {
        "name": "converter",
        "url": f"http://127.0.0.1:{port}/v1/hints/site",
        "headers": {"Authorization": [f"Bearer {_SECRET}"]},
        "timeout": "5s",
        "threshold": 1000,
        "backoff": "100ms",
    }
    async with (
        RegistryServer.run(tmp_path / "registry", notifications=[endpoint]) as registry,
        ImagePublisher.run() as publisher,
    ):
        name = f"{registry.address}/ns/tool"
        wishes = {
            "version": 2,
            "defaults": {"repositories": "images.example.org"},
            "policies": [{"name": "signed", "images": f"{registry.address}/*", "keys": ["release.pub"]}],
            "images": [{"image": name, "tags": "v*"}],
        }
        site = {"name": "site", "kind": "distribution", "registry": registry.address, "secret": _SECRET}
        (tmp_path / "wishes.yaml").write_text(json.dumps(wishes))
        (tmp_path / "endpoints.yaml").write_text(json.dumps({"endpoints": [site]}))
        settings = ConverterSettings(
            wish_lists=(str(tmp_path / "wishes.yaml"),),
            publishers=(f"images.example.org={publisher.url}",),
            publisher_token=SecretStr("a token of the test"),
            state=tmp_path / "state",
            hints_endpoints=tmp_path / "endpoints.yaml",
            interval=86400,
            retry_first=86400,
            retry_last=86400,
        )
        # There is something that can be polled, and from then on nothing but webhooks tell of the rest: the image, and
        # that it has been signed.
        await registry.push(f"oci:{tmp_path / 'image'}:v1", "ns/tool:first", "--preserve-digests")
        async with (
            build_converter(settings, impatient(read_timeout=60.0, connect_timeout=60.0)) as converter,
            TestClient(TestServer(converter.app, port=port)) as client,
            RegistryClient(options=impatient(read_timeout=60.0, connect_timeout=60.0)) as registries,
            asyncio.TaskGroup() as group,
        ):
            await converter.rounds.begin()
            rounds = group.create_task(converter.rounds.run(converter.hints))

            async def metrics() -> str:
                return await (await client.get("/metrics")).text()

            async def polled() -> bool:
                return "\nconverter_polls_total{" in await metrics()

            async def refused() -> bool:
                return f'\nconverter_failures_total{{registry="{registry.address}",what="signature_unsigned"}}' in (
                    await metrics()
                )

            async def asked() -> bool:
                return bool(publisher.asked())

            await wait_until(polled, what="the first poll")
            await registry.push(f"oci:{tmp_path / 'image'}:v1", "ns/tool:v1", "--preserve-digests")
            await wait_until(refused, what="the refusal of what is not signed")
            assert publisher.asked() == []
            digest = (await registries.head(ImageReference.parse(f"{name}:v1"))).digest
            await cosign.sign(f"{name}@{digest.oci}", "release")
            await wait_until(asked, what="the question to the publisher")
            rounds.cancel()
    # An answer that does not come in time is asked for again.
    for request in publisher.asked():
        assert (request["name"], request["digest"]) == (f"{name}:v1", digest.oci)
        (policy,) = request["verified"]["policies"]
        assert (policy["policy"], policy["key"], policy["identity"]) == ("signed", "release.pub", name)
