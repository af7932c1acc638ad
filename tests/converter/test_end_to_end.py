"""From a registry to a repository by way of the real publisher, and out of it again."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.common.layout import LayerLayout
from services.converter.model import DAY, ChosenTags, ThinTarget
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from tests.support.converter import REPOSITORY, Rig, wish
from tests.support.image_publisher import ImagePublisher as Recorder
from tests.support.image_site import ImagePublisher, layer_of, push_image
from tests.support.registries import RegistryServer, impatient

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(tmp_path: Path) -> AsyncIterator[ImagePublisher]:
    """A publisher to a directory."""
    async with ImagePublisher.running(tmp_path / "publisher", options=impatient(read_timeout=60.0)) as publisher:
        yield publisher


async def test_images_come_are_replaced_and_go(
    registry: RegistryServer, publisher: ImagePublisher, tmp_path: Path
) -> None:
    rig = Rig(directory=tmp_path, publisher=Recorder(url=publisher.url))
    rig.verifier.verified = {"policies": [{"policy": "signed", "key": "a key"}]}
    base, first, second = (layer_of(text) for text in ("base", "first", "second"))
    name = await push_image(registry, "end/tool:v1", [base, first])
    other = await push_image(registry, "end/tool:v2", [base])
    target = ThinTarget(
        template=f"https://{registry.address}/thin/$(image)", repository=REPOSITORY, layout=LayerLayout.FLAT
    )
    everything = wish(f"{registry.address}/end/tool", ChosenTags(), thin=(target,))
    rig.lists.wish(everything)

    async with rig.rounds() as rounds:
        assert (await rounds.once()).is_success
        assert publisher.has(base, first, second) == [True, True, False]
        record = json.loads(publisher.documents(name)["image.json"])
        assert record["verified"] == rig.verifier.verified
        async with RegistryClient(options=impatient(read_timeout=60.0)) as client:
            thin = ImageReference.parse(f"{registry.address}/thin/end/tool:v1")
            pushed = (await client.manifest(thin)).digest

            await push_image(registry, "end/tool:v1", [base, second])
            assert (await rounds.once()).is_success
            assert (await client.manifest(thin)).digest != pushed
        assert publisher.has(base, first, second) == [True, True, True]
        assert json.loads(publisher.documents(name)["image.json"])["digest"] != record["digest"]

        assert (await rounds.once()).is_success  # and there is nothing to do
        rig.lists.wish(wish(f"{registry.address}/end/tool", "v2"))
    async with rig.rounds() as rounds:
        assert (await rounds.once()).is_success
        assert publisher.documents(name)
        rig.clocks.pass_by(8 * DAY)
        result = await rounds.once()
    assert result.retention.removed == 1
    await publisher.becomes(name, "removed")
    assert not publisher.documents(name)
    assert publisher.documents(other)
    lines = [json.loads(line) for line in rig.notifications.read_text().splitlines()]
    ended = [line for line in lines if line["action"] == "end_layer_conversion"]
    assert {line["image"] for line in ended} == {name, other}
    assert all(line["status"] == "ok" and line["size_bytes"] > 0 for line in ended)
    published = rig.metrics.registry.get_sample_value("converter_images_published_total", {"repository": REPOSITORY})
    assert published == 3
    saved = rig.metrics.registry.get_sample_value("converter_saved_bytes_total", {"repository": REPOSITORY})
    assert saved is not None
    assert saved >= len(base)
