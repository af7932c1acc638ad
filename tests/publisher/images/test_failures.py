"""What goes wrong with one image stays its own: registries that fail, wrong content, layers that are refused."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from harness.processes import wait_until
from services.common.image_name import ImageName
from services.registry.mirrors import Mirror
from tests.support.image_site import ImagePublisher, layer_of, push_image, sha256
from tests.support.registries import RegistryServer, impatient
from tests.support.registry_faults import Effect, Fault, FaultyRegistry, changed, refused, stalled
from tests.support.tars import archive, member

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def faulty(registry: RegistryServer) -> AsyncIterator[FaultyRegistry]:
    """A proxy before the registry."""
    async with FaultyRegistry.before(registry.address) as proxy:
        yield proxy


async def _spool_is_empty(publisher: ImagePublisher) -> None:
    """Wait until archives that nobody needs any more are gone, soon after the journal says what became of them."""

    async def empty() -> bool:
        return list(publisher.spool.iterdir()) == []

    await wait_until(empty, what="the spool is empty")


@pytest.mark.parametrize(
    ("effect", "times", "said"),
    [
        (refused(404), 1, "does not have it"),
        (refused(401), 1, "authentication"),
        (refused(403), 1, "does not allow it"),
        (refused(429), 3, "too many requests"),
        (refused(500), 3, "failing or overloaded"),
    ],
    ids=["404", "401", "403", "429", "500"],
)
async def test_a_registry_that_fails_for_a_while_delays_its_image(
    registry: RegistryServer, publisher: ImagePublisher, faulty: FaultyRegistry, effect: Effect, times: int, said: str
) -> None:
    layer = layer_of("fails for a while")
    name = faulty.named(await push_image(registry, "fails:1", [layer]))
    faulty.faults.append(Fault("GET .*/manifests/", effect, times=times))
    seen: list[str] = []

    async def published() -> bool:
        image = await publisher.api.image(name)
        assert image is not None
        if image.reason is not None:
            seen.append(image.reason)
            assert image.retryable in (True, None)
        return image.state == "published"

    await publisher.ask(name)
    await wait_until(published, what="the image is published")
    assert not seen or said in seen[0]
    failures = await publisher.metric("publisher_image_failures_total", registry=faulty.address)
    assert failures >= 1
    assert publisher.has(layer) == [True]


async def test_a_registry_says_when_to_ask_again(
    registry: RegistryServer, publisher: ImagePublisher, faulty: FaultyRegistry
) -> None:
    name = faulty.named(await push_image(registry, "later:1", [layer_of("later")]))
    faulty.faults.append(Fault("GET .*/manifests/", refused(429, retry_after="3000"), times=1))
    await publisher.ask(name)
    image = await publisher.becomes(name, "failed")
    assert image.next_attempt is not None
    assert 2000 < (image.next_attempt - datetime.now(UTC)).total_seconds() <= 3000
    # Nor does anybody else ask it meanwhile.
    other = faulty.named(await push_image(registry, "later:2", [layer_of("later")]))
    await publisher.ask(other)
    image = await publisher.becomes(other, "failed")
    assert "wants no such request" in str(image.reason)
    assert len(faulty.seen("/v2/later/")) == 1
    # But an operator who knows better.
    await publisher.api.retry(name)
    await publisher.becomes(name, "published")


async def test_what_no_registry_has_is_given_up_and_tried_again_when_asked_for(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    name = ImageName(f"{registry.address}/missing:1")
    await publisher.ask(name)
    image = await publisher.refused(name)
    assert image.attempts >= 5
    assert image.next_attempt is not None
    assert (image.next_attempt - datetime.now(UTC)).total_seconds() > 80_000
    await push_image(registry, "missing:1", [layer_of("missing no more")])
    await publisher.published(name)


async def test_content_that_is_not_what_it_is_named_by_is_refused_for_good(
    registry: RegistryServer, publisher: ImagePublisher, faulty: FaultyRegistry
) -> None:
    good, damaged = layer_of("beside damage"), layer_of("damaged", size=5000)
    name = faulty.named(await push_image(registry, "damaged:1", [good, damaged]))
    faulty.faults.append(Fault(f"GET .*/blobs/sha256:{sha256(damaged)}", changed(bytes.swapcase), times=100))
    other = faulty.named(await push_image(registry, "damaged:2", [good]))
    await publisher.ask(name)
    await publisher.published(other)
    image = await publisher.becomes(name, "failed")
    assert image.is_refused
    assert f"sha256:{sha256(damaged)}" in (image.reason or "")
    assert publisher.documents(name) == {}
    assert publisher.has(good, damaged) == [True, False]
    await _spool_is_empty(publisher)
    # Whoever asks for the same again does not make it be fetched again.
    asked = await publisher.ask(name, digest=f"sha256:{image.digest}")
    assert (asked.state, asked.attempts) == ("failed", image.attempts)


async def test_what_a_mirror_damages_comes_from_the_registry_and_what_it_has_is_looked_at_again(
    registry: RegistryServer, tmp_path: Path, faulty: FaultyRegistry
) -> None:
    of_mirror, of_both = layer_of("damaged by a mirror", size=5000), layer_of("damaged by both", size=5000)
    first = faulty.named(await push_image(registry, "mirrored:1", [of_mirror]))
    second = faulty.named(await push_image(registry, "mirrored:2", [of_both]))
    async with FaultyRegistry.before(registry.address) as mirror:
        mirror.faults.append(Fault("GET .*/blobs/sha256:", changed(bytes.swapcase), times=1000))
        faulty.faults.append(Fault(f"GET .*/blobs/sha256:{sha256(of_both)}", changed(bytes.swapcase), times=1))
        mirrored = impatient(
            connect_timeout=30.0, read_timeout=30.0, mirrors={faulty.address: Mirror.parse(mirror.address)}
        )
        async with ImagePublisher.running(tmp_path, options=mirrored, retry_refused_images=0.1) as publisher:
            image = await publisher.published(first)
            assert image.bytes_fetched == len(of_mirror)
            assert publisher.has(of_mirror) == [True]
            assert await publisher.metric("publisher_mirror_damage_total", registry=faulty.address) == 1
            # The registry has mended it when it is asked once more.
            await publisher.published(second)
            assert publisher.has(of_both) == [True]
            assert await publisher.metric("publisher_image_failures_total", reason="digest") == 1


async def test_a_layer_that_breaks_a_rule_fails_its_image_only(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    good, hostile = layer_of("beside a hostile one"), archive(member(b"../../etc/passwd", b"x"))
    name = await push_image(registry, "hostile:1", [good, hostile])
    other = await push_image(registry, "hostile:2", [good])
    await publisher.ask(name)
    await publisher.ask(other)
    image = await publisher.becomes(name, "failed")
    assert image.is_refused
    assert f"layer sha256:{sha256(hostile)}: the archive is refused" in (image.reason or "")
    await publisher.becomes(other, "published")
    assert publisher.documents(name) == {}


async def test_a_registry_that_hangs_holds_up_no_other(
    registry: RegistryServer, tmp_path: Path, faulty: FaultyRegistry
) -> None:
    slow = [layer_of(f"hangs {number}", size=5000) for number in range(6)]
    name = faulty.named(await push_image(registry, "hangs:1", slow))
    other = await push_image(registry, "hangs:2", [layer_of("does not hang")])
    digests = "|".join(map(sha256, slow))
    faulty.faults.append(Fault(f"GET .*/blobs/sha256:({digests})", stalled(100), times=100))
    async with ImagePublisher.running(tmp_path / "publisher", options=impatient(read_timeout=2.0)) as publisher:
        await publisher.ask(name)
        await publisher.becomes(name, "fetching", "failed")
        await publisher.published(other)
        assert publisher.documents(name) == {}
        faulty.faults.clear()
        await publisher.becomes(name, "published")


async def test_an_ask_for_something_else_gives_up_what_is_under_way(
    registry: RegistryServer, publisher: ImagePublisher, faulty: FaultyRegistry
) -> None:
    old, new = layer_of("superseded", size=5000), layer_of("wanted now")
    name = faulty.named(await push_image(registry, "superseded:1", [old]))
    faulty.faults.append(Fault(f"GET .*/blobs/sha256:{sha256(old)}", stalled(100), times=100))
    await publisher.ask(name)
    await publisher.becomes(name, "fetching")
    pushed = await push_image(registry, "superseded:2", [new])
    wanted = await publisher.published(pushed)
    await publisher.ask(name, reference=str(pushed), digest=f"sha256:{wanted.published_digest}")
    image = await publisher.becomes(name, "published")
    assert image.published_digest == wanted.published_digest
    assert publisher.has(old) == [False]
    await _spool_is_empty(publisher)
    assert [version.digest for version in await publisher.api.versions(name)] == [wanted.published_digest]


async def test_what_two_images_miss_is_fetched_once(
    registry: RegistryServer, publisher: ImagePublisher, faulty: FaultyRegistry
) -> None:
    shared = [layer_of(f"fetched once {number}") for number in range(3)]
    names = [
        faulty.named(await push_image(registry, f"once:{number}", [*shared, layer_of(f"once, own {number}")]))
        for number in range(6)
    ]
    for name in names:
        await publisher.ask(name)
    for name in names:
        await publisher.becomes(name, "published")
    for layer in shared:
        assert len(faulty.seen(f"GET .*/blobs/sha256:{sha256(layer)}")) == 1
