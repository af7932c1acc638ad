"""The time from the death of the publisher that holds the lease of a repository to what another one makes of it.

That is when it has the lease, and when what was left is published. The lease is one of a repository in a bucket.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg

from harness.bench.databases import small_layer
from harness.bench.measure import Row, Target
from harness.bench.publisher_site import NAME, BenchPublisher, PublisherSite, open_publisher_site
from harness.s3 import s3_client
from services.common.digest import Digest
from services.common.object_store.store import ObjectStore
from services.repository.native.storage.lease import LEASE_FILE

__all__ = ["takeover"]

_LEASE: Final = 10
"""Seconds of the repository's lease."""
_MORE: Final = 2
"""Seconds that a take-over may take beyond it."""
_LAYERS: Final = 20
_TAKEN: Final = "lease taken"
_PATIENCE: Final = 300
"""Seconds that anything may take."""
_POLL: Final = 0.01
"""Seconds between two looks."""
_STATES: Final = "SELECT count(*) FROM layers WHERE state = 'published' AND digest = ANY(%s)"


async def takeover(directory: Path, runs: int) -> list[Row]:
    """Kill, again and again, the publisher that holds the lease, and wait for the other one.

    Parameters
    ----------
    directory
        Is made, and holds everything.
    runs
        Figures that count.
    """
    async with open_publisher_site(directory) as site, AsyncExitStack() as stack:
        pair = await _pair(site)
        for publisher in pair.publishers:
            stack.push_async_callback(publisher.daemon.stop)
            await publisher.start()
        turns = [await pair.turn() for _ in range(runs)]
    taken, published = map(list, zip(*turns, strict=True))
    return [
        Row(
            name=f"take-over after kill -9, lease of {_LEASE} s",
            samples={_TAKEN: taken, f"{_LAYERS} layers published": published},
            targets=(Target(subject=_TAKEN, limit=_LEASE + _MORE),),
        )
    ]


async def _pair(site: PublisherSite) -> "_Pair":
    """Make two publishers of one repository, which are not started yet."""
    database = await site.postgresql.create("takeover")
    access = await site.bucket("takeover")
    settings = {
        **await site.repository_in_bucket("takeover"),
        "REPOSITORY_STORE_LEASE_SECONDS": str(_LEASE),
    }
    publishers = [
        site.publisher(f"takeover-{number}", access, database=database, settings=settings) for number in range(2)
    ]
    return _Pair(site=site, database=database, repository=settings["REPOSITORY_STORE_BUCKET"], publishers=publishers)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two publishers of one repository."""

    site: PublisherSite
    database: str
    repository: str
    """Bucket of the repository."""
    publishers: Sequence[BenchPublisher]
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def turn(self) -> tuple[float, float]:
        """Kill the one that holds the lease, and start it again in the end.

        Returns
        -------
        tuple
            Seconds until the other one has the lease, and until all is published.
        """
        layers = await self._uploaded()
        async with asyncio.timeout(_PATIENCE), s3_client(self.site.store.access) as client:
            await self.publishers[0].announce(layers)
            killed = await self._held(client, self.publishers)
            await killed.daemon.kill()
            begun = time.perf_counter()
            await self._held(client, [publisher for publisher in self.publishers if publisher is not killed])
            taken = time.perf_counter() - begun
            while await self._published(layers) < len(layers):  # noqa: ASYNC110 - another process publishes them
                await asyncio.sleep(_POLL)
            published = time.perf_counter() - begun
        await killed.start()
        return taken, published

    async def _held(self, client: Any, publishers: Sequence[BenchPublisher]) -> BenchPublisher:  # noqa: ANN401 - as below
        """Wait until one of some publishers holds the lease; return it."""
        names = {publisher.holder(): publisher for publisher in publishers}
        while (holder := await self._holder(client)) not in names:  # noqa: ASYNC110 - another process takes it
            await asyncio.sleep(_POLL)
        return names[holder]

    async def _holder(self, client: Any) -> str:  # noqa: ANN401 - botocore's clients have no static type
        """Return who holds the lease; nothing if nobody does."""
        try:
            answer = await client.get_object(Bucket=self.repository, Key=LEASE_FILE)
        except client.exceptions.NoSuchKey:
            return ""
        return str(json.loads(await answer["Body"].read())["holder"])

    async def _uploaded(self) -> list[Digest]:
        place = self.site.directory / "takeover-layers"
        place.mkdir(exist_ok=True)
        layers = [small_layer(place, f"take-over {next(self.numbers)}") for _ in range(_LAYERS)]
        async with ObjectStore(settings=self.publishers[0].access.settings) as store:
            for layer in layers:
                await store.upload(layer, repository=NAME)
        return [layer.digest for layer in layers]

    async def _published(self, layers: Sequence[Digest]) -> int:
        """Return how many of some layers are published."""
        password = self.site.postgresql.password.get_secret_value()
        async with await psycopg.AsyncConnection.connect(self.database, password=password) as connection:
            cursor = await connection.execute(_STATES, (list(layers),))
            row = await cursor.fetchone()
            return 0 if row is None else int(row[0])
