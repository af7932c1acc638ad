"""Faults between a publisher and all that it talks to: layers' bucket, repository's bucket, database, events."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from harness.postgresql import PostgresqlServer
from harness.s3 import S3Access
from harness.seaweedfs import SeaweedFS
from services.common.archive.model import LayerArchive
from tests.support.fault_proxy import FaultProxy, Link
from tests.support.network_faults import BLACK_HOLE, HALF_OPEN, RESET, SLOW, WRONG, Blow, Pair
from tests.support.object_stores import new_bucket
from tests.support.publisher import make_layer, upload
from tests.support.publisher_site import PublisherSite
from tests.support.soak import Soak

pytestmark = pytest.mark.asyncio(loop_scope="session")

_IMPATIENT = {
    **{
        f"{prefix}_{name}": value
        for prefix in ("LAYER_STORE", "REPOSITORY_STORE")
        for name, value in (("CONNECT_TIMEOUT", "1"), ("READ_TIMEOUT", "1"), ("RETRY_SECONDS", "2"))
    },
    "PUBLISHER_SWEEP_INTERVAL": "3600",
}
"""Settings of a site that wants to know soon."""


@dataclass(kw_only=True)
class Site:
    """A publisher, and a way to each that it talks to."""

    publishers: PublisherSite
    access: S3Access
    store: FaultProxy
    repository: FaultProxy
    directory: Path
    layers: list[LayerArchive] = field(default_factory=list)

    @property
    def database(self) -> Link:
        return self.publishers.links[0]

    async def publish(self) -> None:
        """Upload a layer and announce it."""
        layer = await self.upload()
        announcing = asyncio.create_task(self.publishers.announce([layer]))
        self.announcing.append(announcing)

    announcing: list[asyncio.Task[None]] = field(default_factory=list)

    async def upload(self) -> LayerArchive:
        layer = make_layer(self.directory, f"layer-{len(self.layers)}")
        self.layers.append(layer)
        await upload(self.access, layer)
        return layer

    async def published(self) -> bool:
        """Whether all layers are."""
        states = await asyncio.gather(*(self.ask(f"/v1/layers/{layer.digest}") for layer in self.layers))
        return all(isinstance(state, dict) and state.get("state") == "published" for state in states)

    async def ask(self, path: str) -> Any:  # noqa: ANN401 - a JSON document
        """Ask the publisher, which has two seconds; None if it does not answer."""
        try:
            async with asyncio.timeout(2):
                return await self.publishers.publishers[0].get(path)
        except (aiohttp.ClientError, TimeoutError):
            return None

    def names(self, *endpoints: str) -> Callable[[], Awaitable[bool]]:
        """Return a condition: the newest layer's error names one of these."""

        async def named() -> bool:
            said = str(await self.ask(f"/v1/layers/{self.layers[-1].digest}"))
            return any(endpoint in said for endpoint in endpoints)

        return named

    async def unready(self) -> bool:
        """Whether the publisher says that it cannot work, or has ended since it cannot."""
        said = await self.ask("/readyz")
        return not self.publishers.publishers[0].daemon.running or (said is not None and not said["ready"])

    def losses(self) -> dict[str, int]:
        return {
            "layers lost": len(self.publishers.missing(self.layers)),
            "faults of the repository": len(self.publishers.problems()),
        }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(
    seaweedfs: SeaweedFS, postgresql: PostgresqlServer, one_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    async with (
        new_bucket(seaweedfs.access) as access,
        FaultProxy.before(access.endpoint) as store,
        FaultProxy.before(access.endpoint) as repository,
    ):
        settings = {
            **_IMPATIENT,
            "LAYER_STORE_ENDPOINT": store.endpoint,
            "REPOSITORY_STORE_ENDPOINT": repository.endpoint,
        }
        async with PublisherSite.running(
            directory, access, postgresql, one_database, publishers=1, settings=settings
        ) as publishers:
            yield Site(
                publishers=publishers,
                access=access,
                store=store,
                repository=repository,
                directory=directory,
            )


async def test_publisher_and_layer_store(soak: Soak, site: Site) -> None:
    pair = Pair(
        subject="publisher and layer store",
        way=site.store,
        work=site.publish,
        shown=site.names(site.store.endpoint),
        done=site.published,
    )
    for blow in soak.pick((), (RESET, BLACK_HOLE, WRONG)):
        await pair.suffer(blow)
    for blow in soak.pick((SLOW,), (SLOW, HALF_OPEN)):
        await pair.outlive(blow)
    soak.record(pair.trial(losses=site.losses(), bound=10, recovery_bound=30))


async def test_publisher_and_repository_in_a_bucket(soak: Soak, site: Site) -> None:
    pair = Pair(
        subject="publisher and repository in a bucket",
        way=site.repository,
        work=site.publish,
        shown=site.names(site.repository.endpoint),
        done=site.published,
    )
    for blow in soak.pick((WRONG,), (RESET, BLACK_HOLE, WRONG)):
        await pair.suffer(blow)
    for blow in soak.pick((), (SLOW, HALF_OPEN)):
        await pair.outlive(blow)
    soak.record(pair.trial(losses=site.losses(), bound=30, recovery_bound=60))


async def test_publisher_and_database(soak: Soak, site: Site) -> None:
    pair = Pair(
        subject="publisher and database",
        way=site.database,
        work=site.publish,
        shown=site.unready,
        done=site.published,
    )
    for blow in soak.pick((RESET,), (RESET, BLACK_HOLE)):
        await pair.suffer(blow)
    for blow in soak.pick((), (SLOW, HALF_OPEN)):
        await pair.outlive(blow)
    soak.record(pair.trial(losses=site.losses(), bound=30, recovery_bound=60))
