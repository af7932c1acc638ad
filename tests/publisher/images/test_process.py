"""A publisher process that has a bucket and a registry: a layer that comes both ways is brought once."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from harness.processes import wait_until
from harness.s3 import S3Access
from services.common.archive.model import LayerArchive, MediaType
from services.common.publisher_api import ImageRequest, PublisherApi
from tests.support.image_site import layer_of, push_image, sha256
from tests.support.notifications import ceph_event
from tests.support.publisher import TOKEN, PublisherProcess, upload
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_layers_that_are_committed_and_of_images_are_brought_once(
    registry: RegistryServer, bucket: S3Access, tmp_path: Path
) -> None:
    layers = [layer_of(f"both ways {number}", size=200_000) for number in range(4)]
    names = [await push_image(registry, f"both:{number}", [layers[number], layers[number + 1]]) for number in range(3)]
    archives = []
    for number, layer in enumerate(layers):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(layer)
        digest = sha256(layer)
        archives.append(
            LayerArchive(
                path=path,
                digest=digest,
                diff_id=digest,
                size=len(layer),
                uncompressed_size=len(layer),
                media_type=MediaType.TAR,
            )
        )
    await upload(bucket, *archives)
    settings = {"PUBLISHER_SWEEP_INTERVAL": "3600", "REGISTRY_PLAIN_HTTP": registry.address}
    publisher = PublisherProcess(tmp_path / "publisher", bucket, settings)
    async with publisher.running(), PublisherApi(url=publisher.url, token=SecretStr(TOKEN)) as api:
        event = ceph_event(bucket.bucket, *(f"sha256/{archive.digest}" for archive in archives))
        await asyncio.gather(publisher.announce(event), *(api.images.ask(ImageRequest(name=name)) for name in names))

        async def published() -> bool:
            images = [await api.images.image(name) for name in names]
            return all(image is not None and image.state == "published" for image in images)

        await wait_until(published, what="the images are published")
        await publisher.published(*archives)
        assert (await publisher.metrics())["publisher_fetched_bytes_total"] == sum(map(len, layers))
        for archive in archives:
            assert (await publisher.layer(archive.digest))["source"] == "bucket"
        status = await publisher.get("/v1/status")
        assert (status["images"]["published"], status["layers"]["published"]) == (3, 4)
