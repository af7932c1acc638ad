"""Images in a spool that is smaller than they are, and what an earlier publisher has left in it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.processes import wait_until
from services.publisher.pipeline import pipeline
from tests.support.image_site import ImagePublisher, layer_of, push_image, sha256
from tests.support.registries import RegistryServer, patient
from tests.support.registry_faults import Fault, FaultyRegistry, held, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LIMIT = 100_000


@pytest_asyncio.fixture(loop_scope="session")
async def faulty(registry: RegistryServer) -> AsyncIterator[FaultyRegistry]:
    """A proxy before the registry."""
    async with FaultyRegistry.before(registry.address) as proxy:
        yield proxy


async def test_an_image_larger_than_the_spool_holds_up_no_other(
    registry: RegistryServer, faulty: FaultyRegistry, tmp_path: Path
) -> None:
    large = [layer_of(f"larger than the spool {number}", size=_LIMIT) for number in range(2)]
    name = faulty.named(await push_image(registry, "larger:1", large))
    other = await push_image(registry, "larger:2", [layer_of("beside it", size=_LIMIT // 2)])
    released, blob = asyncio.Event(), f"GET .*/blobs/sha256:{sha256(large[0])}"
    faulty.faults.append(Fault(blob, held(released)))
    settings: dict[str, Any] = {"options": patient(), "spool_limit": _LIMIT}
    async with ImagePublisher.running(tmp_path / "publisher", **settings) as publisher:
        await publisher.ask(name)

        async def is_in() -> bool:
            return bool(faulty.seen(blob))

        await wait_until(is_in, what="the large image is in the spool")
        await publisher.published(other)
        assert len(faulty.seen(blob)) == 1
        assert publisher.documents(name) == {}
        released.set()
        await publisher.becomes(name, "published")
        assert publisher.has(*large) == [True, True]


async def test_what_was_fetched_for_another_version_does_not_stay_in_the_spool(
    registry: RegistryServer, faulty: FaultyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_LOOK", 0.02)
    here, missing, wanted = layer_of("left in the spool"), layer_of("never fetched"), layer_of("wanted instead")
    name = faulty.named(await push_image(registry, "left:1", [here, missing]))
    faulty.faults.append(Fault(f"GET .*/blobs/sha256:{sha256(missing)}", refused(404), times=100))
    settings: dict[str, Any] = {"retry_first": 3600, "retry_last": 3600}
    async with ImagePublisher.running(tmp_path / "publisher", **settings) as publisher:
        await publisher.ask(name)
        await publisher.becomes(name, "failed")
        spool = publisher.spool
    (spool / sha256(here)).write_bytes(here)  # as a publisher leaves it that is killed
    async with ImagePublisher.running(tmp_path / "publisher", **settings) as publisher:
        pushed = await push_image(registry, "left:2", [wanted])
        digest = (await publisher.published(pushed)).published_digest
        assert (spool / sha256(here)).exists()  # it is still wanted
        await publisher.ask(name, reference=str(pushed), digest=f"sha256:{digest}")
        await publisher.becomes(name, "published")

        async def is_gone() -> bool:
            return list(spool.iterdir()) == []

        await wait_until(is_gone, what="the spool is empty")
