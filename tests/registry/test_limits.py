"""How many requests a registry gets, and when it gets none."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import pytest_asyncio
from aiohttp import web

from services.registry.client import RegistryClient
from services.registry.errors import RegistryUnavailableError
from services.registry.reference import ImageReference
from tests.support.registries import RegistryServer, patient
from tests.support.registry_faults import Fault, FaultyRegistry, changed, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

ALWAYS = 1000


@pytest_asyncio.fixture(loop_scope="session")
async def client() -> AsyncIterator[RegistryClient]:
    async with RegistryClient(options=patient()) as client:
        yield client


def image(proxy: FaultyRegistry) -> ImageReference:
    return ImageReference.parse(f"{proxy.address}/layers:1")


async def test_a_registry_gets_so_many_requests_at_a_time(registry: RegistryServer) -> None:
    going, most, full = 0, 0, asyncio.Event()

    async def held(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        nonlocal going, most
        going += 1
        most = max(most, going)
        if going == 3:
            full.set()
        await full.wait()
        status, headers, _ = await proxy.fetch(request)
        going -= 1
        return web.Response(status=status, headers=headers)

    async with (
        FaultyRegistry.before(registry.address, Fault("HEAD ", held, times=ALWAYS)) as proxy,
        RegistryClient(options=patient(concurrency=3)) as client,
    ):
        found = await asyncio.gather(*(client.head(image(proxy)) for _ in range(12)))
    assert len(set(found)) == 1
    assert most == 3


async def test_one_registry_that_hangs_holds_up_no_other(registry: RegistryServer) -> None:
    release, hanging = asyncio.Event(), asyncio.Event()

    async def hangs(_proxy: FaultyRegistry, _request: web.Request) -> web.StreamResponse:
        hanging.set()
        await release.wait()
        return web.Response(status=500)

    async with (
        FaultyRegistry.before(registry.address, Fault("HEAD ", hangs, times=ALWAYS)) as bad,
        FaultyRegistry.before(registry.address) as good,
        RegistryClient(options=patient(concurrency=1, attempts=1)) as client,
        asyncio.TaskGroup() as group,
    ):
        stuck = group.create_task(client.head(image(bad)))
        await hanging.wait()
        await client.head(image(good))
        assert not stuck.done()
        stuck.cancel()
        release.set()


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_pause_that_is_asked_for_is_everybodys(registry: RegistryServer, form: str) -> None:
    """No request of any kind is sent meanwhile, and what would wait too long says for how long."""
    told = "3600" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    async with (
        FaultyRegistry.before(registry.address, Fault("HEAD ", refused(429, retry_after=told))) as proxy,
        RegistryClient(options=patient()) as client,
    ):
        for ask in (client.head, client.head, client.tags, client.manifest):
            with pytest.raises(RegistryUnavailableError) as caught:
                await ask(image(proxy))
            assert caught.value.retry_after == pytest.approx(3600, abs=120)
        assert len(proxy.requests) == 1


async def test_who_insists_is_let_through_once(client: RegistryClient, registry: RegistryServer) -> None:
    fault = Fault("HEAD ", refused(429, retry_after="3000"), times=2)
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        for asked in (1, 2):
            with pytest.raises(RegistryUnavailableError):
                await client.head(image(proxy))
            assert len(proxy.requests) == asked
            with pytest.raises(RegistryUnavailableError, match="wants no such request"):
                await client.head(image(proxy))
            assert len(proxy.requests) == asked
            client.excuse(image(proxy))
        # What it gives then says that the pause is over.
        await client.head(image(proxy))
        await client.head(image(proxy))


async def test_no_registry_is_left_alone_for_ever(registry: RegistryServer) -> None:
    """Whatever it asks for."""
    fault = Fault("HEAD ", refused(503, retry_after="Fri, 31 Dec 9999 23:59:59 GMT"))
    async with (
        FaultyRegistry.before(registry.address, fault) as proxy,
        RegistryClient(options=patient()) as client,
    ):
        with pytest.raises(RegistryUnavailableError, match=r"try again in [0-9]{12} s"):
            await client.head(image(proxy))
        with pytest.raises(RegistryUnavailableError, match=r"wants no such request for 3[56][0-9]{2} s"):
            await client.head(image(proxy))


async def test_a_short_pause_is_waited_for(client: RegistryClient, registry: RegistryServer) -> None:
    now = asyncio.get_running_loop().time
    async with FaultyRegistry.before(registry.address, Fault("HEAD ", refused(429, retry_after="1"))) as proxy:
        began = now()
        await asyncio.gather(*(client.head(image(proxy)) for _ in range(5)))
        assert now() - began >= 0.9


async def test_docker_hubs_limit_is_obeyed(registry: RegistryServer) -> None:
    """Manifests are rationed there, and not what polling asks."""
    used_up = {"ratelimit_limit": "100;w=360000", "ratelimit_remaining": "0;w=360000"}
    async with (
        FaultyRegistry.before(registry.address, Fault("GET .*/manifests/", changed(bytes, **used_up))) as proxy,
        RegistryClient(options=patient()) as client,
    ):
        await client.manifest(image(proxy))
        with pytest.raises(RegistryUnavailableError, match=r"wants no such request for 3[56][0-9][0-9] s") as caught:
            await client.manifest(image(proxy))
        assert caught.value.retry_after == pytest.approx(3600, abs=120)
        assert len(proxy.seen("GET .*/manifests/")) == 1
        await client.head(image(proxy))
        proxy.faults.append(
            Fault("HEAD ", changed(lambda _: b"", ratelimit_limit="100;w=360000", ratelimit_remaining="1;w=360000"))
        )
        await client.head(image(proxy))
        await client.manifest(image(proxy))


async def test_pauses_grow_and_shrink_where_no_time_is_told(registry: RegistryServer) -> None:
    now = asyncio.get_running_loop().time

    async def refused_once(client: RegistryClient, proxy: FaultyRegistry, times: int) -> float:
        proxy.faults.append(Fault("HEAD ", refused(429), times=times))
        began = now()
        await client.head(image(proxy))
        return now() - began

    async with (
        FaultyRegistry.before(registry.address) as proxy,
        RegistryClient(options=patient(attempts=5)) as client,
    ):
        assert await refused_once(client, proxy, 2) >= 0.5 + 1.0
        for _ in range(4):
            await client.head(image(proxy))
        assert await refused_once(client, proxy, 1) >= 0.5
