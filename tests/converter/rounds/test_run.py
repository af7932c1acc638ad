"""The daemon: polls at intervals, follows hints at once, tries again, pushes thin images, and goes on after a kill."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from harness.processes import wait_until
from services.common.errors import SuiteError
from services.common.layout import LayerLayout
from services.converter.model import ChosenTags, ExactTag, Hint, ThinTarget
from services.converter.rounds.rounds import Rounds
from services.registry.client import RegistryClient
from services.registry.errors import ImageMissingError
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from services.thin_image.image import build_thin_image
from tests.support.converter import REPOSITORY, Rig, push_small, wish
from tests.support.registries import RegistryServer, impatient
from tests.support.registry_faults import Fault, FaultyRegistry, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(slots=True)
class Hints:
    """Hints of a test."""

    queue: asyncio.Queue[Hint] = field(default_factory=asyncio.Queue)
    finished: list[Hint] = field(default_factory=list)

    async def next(self) -> Hint:
        return await self.queue.get()

    async def done(self, hint: Hint) -> None:
        self.finished.append(hint)


@asynccontextmanager
async def _running(rig: Rig, hints: Hints | None = None, **settings: Any) -> AsyncIterator[Rounds]:  # noqa: ANN401 - fields of the settings
    async with rig.rounds(**settings) as rounds:
        task = asyncio.create_task(rounds.run(hints))
        try:
            yield rounds
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def _until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await wait_until(holds, what="what the test waits for")


def _published(rig: Rig, name: str, digest: str) -> bool:
    return bool(rig.publisher.images.get(name, {}).get("published_digest") == f"sha256:{digest}")


async def test_what_moves_is_found_at_the_next_poll(registry: RegistryServer, rig: Rig) -> None:
    name = f"{registry.address}/run/polled:v1"
    first = await push_small(registry.address, "run/polled:v1", b"first")
    rig.lists.wish(wish(f"{registry.address}/run/polled", "v1", interval=0.2))
    async with _running(rig):
        await _until(lambda: _published(rig, name, first))
        second = await push_small(registry.address, "run/polled:v1", b"second")
        await _until(lambda: _published(rig, name, second))


async def test_a_new_list_is_read_while_it_runs(registry: RegistryServer, rig: Rig) -> None:
    first = await push_small(registry.address, "run/listed:v1", b"first")
    async with _running(rig, reread=0.05):
        rig.lists.wish(wish(f"{registry.address}/run/listed", "v1"))
        await _until(lambda: _published(rig, f"{registry.address}/run/listed:v1", first))


@pytest.mark.parametrize("selection", [ExactTag("v1"), ChosenTags(include=("v*",)), ChosenTags(newest=5)], ids=str)
async def test_a_hint_has_its_tag_looked_at_at_once(
    registry: RegistryServer, rig: Rig, selection: ExactTag | ChosenTags
) -> None:
    repository = "run/hinted" + str(sum(str(selection).encode()))
    if isinstance(selection, ChosenTags):
        await push_small(registry.address, f"{repository}:v0", b"another")
    await push_small(registry.address, f"{repository}:v1", b"first")
    hints = Hints()
    async with FaultyRegistry.before(registry.address) as proxy:
        name = f"{proxy.address}/{repository}"
        rig.lists.wish(wish(name, selection))
        async with _running(rig, hints):
            await _until(lambda: f"{name}:v1" in rig.publisher.images)
            await _until(lambda: all(each["state"] == "published" for each in rig.publisher.images.values()))
            second = await push_small(registry.address, f"{repository}:v1", b"second")
            proxy.requests = []
            hint = Hint(registry=proxy.address.upper(), repository=repository, tag="v1")
            hints.queue.put_nowait(hint)
            await _until(lambda: _published(rig, f"{name}:v1", second))
            await _until(lambda: hints.finished == [hint])
            hints.queue.put_nowait(Hint(registry="nobody.example.org", repository=repository, tag="v1"))
            await _until(lambda: len(hints.finished) == 2)
        assert proxy.seen("/manifests/v1")
        assert not proxy.seen("/manifests/v0")


async def test_a_registry_that_announces_what_it_has_not_written_yet_is_asked_again(
    registry: RegistryServer, rig: Rig
) -> None:
    await push_small(registry.address, "run/early:v1", b"first")
    second: list[str] = []

    async def early(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        status, headers, _ = await proxy.fetch(request)
        second.append(await push_small(registry.address, "run/early:v1", b"second"))
        return web.Response(status=status, headers=headers)

    hints = Hints()
    async with FaultyRegistry.before(registry.address) as proxy:
        name = f"{proxy.address}/run/early"
        rig.lists.wish(wish(name, "v1"))
        async with _running(rig, hints):
            await _until(lambda: f"{name}:v1" in rig.publisher.images)
            proxy.faults = [Fault("/manifests/v1", early)]
            hints.queue.put_nowait(Hint(registry=proxy.address, repository="run/early", tag="v1"))
            await _until(lambda: bool(second) and _published(rig, f"{name}:v1", second[0]))


async def test_who_hints_at_an_image_that_was_refused_has_it_tried_again(registry: RegistryServer, rig: Rig) -> None:
    await push_small(registry.address, "run/refused:v1", b"first")
    name = f"{registry.address}/run/refused"
    rig.lists.wish(wish(name, "v1"))
    rig.verifier.refusal = SuiteError("nobody has signed it")
    hints = Hints()
    async with _running(rig, hints, retry_first=86400, retry_last=86400):
        async with rig.state() as state:

            async def is_postponed() -> bool:
                return any(late.reason == "nobody has signed it" for late in await state.copies.late(1))

            await wait_until(is_postponed, what="the refusal is recorded")
        rig.verifier.refusal = None
        hints.queue.put_nowait(Hint(registry=registry.address, repository="run/refused", tag="v1"))
        await _until(lambda: f"{name}:v1" in rig.publisher.images)


async def test_a_registry_that_stalls_holds_up_no_other(registry: RegistryServer, rig: Rig) -> None:
    first = await push_small(registry.address, "run/quick:v1", b"first")
    released = asyncio.Event()

    async def stall(proxy: FaultyRegistry, request: Any) -> Any:  # noqa: ANN401 - an effect
        await released.wait()
        return await refused(503)(proxy, request)

    async with FaultyRegistry.before(registry.address, Fault("/", stall, times=1000)) as proxy:
        slow = [wish(f"{proxy.address}/slow/number{number}", "v1", line=number) for number in range(40)]
        rig.lists.wish(*slow, wish(f"{registry.address}/run/quick", "v1", line=99))
        async with _running(rig):
            await _until(lambda: _published(rig, f"{registry.address}/run/quick:v1", first))
            released.set()


async def test_thin_images_are_pushed_when_their_image_is_published_and_again_where_that_fails(
    registry: RegistryServer, rig: Rig
) -> None:
    digest = await push_small(registry.address, "run/thin:v1", b"first")
    faults = [Fault("PUT /v2/thin/.*/manifests/", refused(500), times=1)]
    async with FaultyRegistry.before(registry.address, *faults) as proxy:
        target = ThinTarget(
            template=f"https://{proxy.address}/thin/$(image)", repository=REPOSITORY, layout=LayerLayout.FLAT
        )
        rig.lists.wish(wish(f"{registry.address}/run/thin", "v1", thin=(target,)))
        rig.publisher.held = True
        async with _running(rig, retry_first=0.1):
            await _until(lambda: bool(rig.publisher.images))
            assert not proxy.requests
            rig.publisher.release()
            await _until(lambda: not faults[0].times)
            async with RegistryClient(options=impatient(read_timeout=60.0)) as client:

                async def is_there() -> bool:
                    try:
                        return "v1" in await client.tags(ImageReference.parse(f"{registry.address}/thin/run/thin"))
                    except ImageMissingError:
                        return False  # not even the repository is

                await _until(lambda: len(proxy.seen("PUT /v2/thin/.*/manifests/")) == 2)
                await wait_until(is_there, what="the thin image")
                original = ImageReference.parse(f"{registry.address}/run/thin:v1")
                image = await client.image(original, Platform("linux", "amd64"))
                assert image.manifest_digest == digest
                made = build_thin_image(image, REPOSITORY, LayerLayout.FLAT)
                pushed = await client.manifest(ImageReference.parse(f"{registry.address}/thin/run/thin:v1"))
                assert pushed.digest == made.manifest.digest
        proxy.requests = []
        async with rig.rounds() as rounds:
            assert (await rounds.once()).is_success
        assert not proxy.requests  # it is there already


async def test_what_was_asked_for_is_followed_by_the_next_process(registry: RegistryServer, rig: Rig) -> None:
    first = await push_small(registry.address, "run/killed:v1", b"first")
    name = f"{registry.address}/run/killed:v1"
    rig.lists.wish(wish(f"{registry.address}/run/killed", "v1"))
    rig.publisher.held = True
    async with _running(rig):
        await _until(lambda: "start_layer_conversion" in rig.notifications.read_text())
    rig.publisher.release()
    async with _running(rig):

        async def is_recorded() -> bool:
            async with rig.state() as state:
                return (await state.summary()).copies["published"] == 1

        await wait_until(is_recorded, what="the record")
    assert _published(rig, name, first)
    lines = [json.loads(line) for line in rig.notifications.read_text().splitlines()]
    actions = [line["action"] for line in lines]
    assert actions.count("start_layer_conversion") == 1
    assert actions[-3:] == ["publish_layer", "end_layer_conversion", "end_ducc"]
    conversion = [line for line in lines if line["action"].endswith(("_layer_conversion", "publish_layer"))]
    assert len({line["id"] for line in conversion}) == 1
    assert conversion[1]["layer_digest"] == "c" * 64


async def test_a_publisher_that_has_forgotten_what_it_was_asked_for_is_asked_once_more(
    registry: RegistryServer, rig: Rig
) -> None:
    first = await push_small(registry.address, "run/forgotten:v1", b"first")
    rig.lists.wish(wish(f"{registry.address}/run/forgotten", "v1"))
    rig.publisher.held = True
    async with _running(rig):
        await _until(lambda: bool(rig.publisher.images))
        rig.publisher.images.clear()
        rig.publisher.held = False
        await _until(lambda: _published(rig, f"{registry.address}/run/forgotten:v1", first))
