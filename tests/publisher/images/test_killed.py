"""A publisher that is killed in any state of an image on its way into a transaction: the image comes by itself."""

import asyncio
import json
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from harness.processes import wait_until
from tests.support.image_site import ImagePublisher, layer_of, push_image, sha256
from tests.support.images_killed import PLACES, publish_until
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("place", PLACES)
async def test_an_image_survives_a_kill(
    registry: RegistryServer, tmp_path: Path, place: str, processes: ForkServerContext
) -> None:
    layers = [layer_of(f"killed {place} one"), layer_of(f"killed {place} two")]
    name = await push_image(registry, f"killed:{place.replace(' ', '-')}", layers)
    directory = tmp_path / "publisher"
    process = processes.Process(target=publish_until, args=(place, directory, str(name)))
    process.start()
    await asyncio.to_thread(process.join, 300)
    assert process.exitcode == -signal.SIGKILL
    documents = directory / "repository" / ".metadata" / name.path

    async def spool_is_empty() -> bool:
        return list((directory / "spool").iterdir()) == []

    assert not documents.exists()
    async with ImagePublisher.running(directory) as publisher:
        image = await publisher.becomes(name, "published")
        assert publisher.has(*layers) == [True, True]
        assert set(publisher.documents(name)) == {"manifest.json", "config.json", "image.json"}
        assert json.loads(publisher.documents(name)["image.json"])["digest"] == f"sha256:{image.published_digest}"
        assert sha256(publisher.documents(name)["manifest.json"]) == image.published_digest
        assert [version.digest for version in await publisher.api.versions(name)] == [image.published_digest]
        fetched = await publisher.metric("publisher_fetched_bytes_total")
        if place in ("ready", "publishing"):
            assert fetched == 0  # what was fetched before was not lost
        await wait_until(spool_is_empty, what="the spool is empty")
