"""Notifications at a thousand a second into publishers that share a journal in PostgreSQL.

The publishers are paused, so that they do nothing else: the layers do not exist. The database syncs every commit.
"""

import itertools
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import psycopg
from pydantic import SecretStr

from harness.bench.event_load import EventLoad, announced, post_events
from harness.bench.measure import Row, Target
from harness.bench.processor import processor_seconds
from harness.bench.publisher_site import BenchPublisher, PublisherSite, open_publisher_site
from services.common.publisher_api.client import PublisherApi

__all__ = ["events"]

_PUBLISHERS: Final = 2
_RATE: Final = 1000
_SECONDS: Final = 20
_WARM_UP: Final = 2000
"""Notifications before those that count."""
_LIMIT: Final = 0.1
_P50: Final = "answer, p50"
_P99: Final = "answer, p99"
_LATE: Final = "sent late, p99"


async def events(directory: Path, runs: int) -> list[Row]:
    """Measure how long notifications take to be answered, from when each was due; afterwards the journal has them all.

    Parameters
    ----------
    directory
        Is made, and holds everything.
    runs
        Figures that count, each of twenty seconds.
    """
    async with open_publisher_site(directory) as site, AsyncExitStack() as stack:
        database = await site.postgresql.create("events")
        access = await site.bucket("announced")
        repository = await site.repository_in_bucket("events")
        publishers = [
            site.publisher(f"events-{number}", access, database=database, settings=repository)
            for number in range(_PUBLISHERS)
        ]
        for publisher in publishers:
            stack.push_async_callback(publisher.daemon.stop)
            await publisher.start()
        api = PublisherApi(url=publishers[0].url, token=SecretStr(publishers[0].token))
        await (await stack.enter_async_context(api)).pause("notifications are measured")
        return await _Measurement(site, publishers, database).rows(runs)


class _Measurement:
    def __init__(self, site: PublisherSite, publishers: Sequence[BenchPublisher], database: str) -> None:
        self._site = site
        self._publishers = publishers
        self._database = database
        self._numbers = itertools.count()
        self._samples: dict[str, list[float]] = {_P50: [], _P99: [], _LATE: []}
        self._processor: dict[str, list[float]] = {"publishers": [], "generator": []}

    async def rows(self, runs: int) -> list[Row]:
        """Take the figures."""
        await self._post(self._load(_WARM_UP))
        for _ in range(runs):
            await self._run(self._load(_RATE * _SECONDS))
        return [
            Row(
                name=f"{_RATE} notifications a second, {len(self._publishers)} publishers",
                samples=self._samples,
                targets=(Target(subject=_P99, limit=_LIMIT),),
            ),
            Row(name="processor time of a notification", samples=self._processor, unit="µs"),
        ]

    def _load(self, count: int) -> EventLoad:
        return EventLoad(
            addresses=[("127.0.0.1", publisher.port) for publisher in self._publishers],
            token=self._publishers[0].token,
            bucket=self._publishers[0].access.bucket,
            name=str(next(self._numbers)),
            rate=_RATE,
            count=count,
        )

    async def _run(self, load: EventLoad) -> None:
        before = self._seconds()
        result = await post_events(load)
        used = self._seconds() - before
        await self._see_all(load)
        latencies = statistics.quantiles(result.latencies, n=100)
        self._samples[_P50].append(latencies[49])
        self._samples[_P99].append(latencies[98])
        self._samples[_LATE].append(statistics.quantiles(result.delays, n=100)[98])
        self._processor["publishers"].append(used / load.count * 1e6)
        self._processor["generator"].append(result.processor / load.count * 1e6)

    async def _post(self, load: EventLoad) -> None:
        await post_events(load)
        await self._see_all(load)

    def _seconds(self) -> float:
        return sum(processor_seconds(publisher.daemon.pid) for publisher in self._publishers)

    async def _see_all(self, load: EventLoad) -> None:
        """Make sure that the journal has what was announced."""
        password = self._site.postgresql.password.get_secret_value()
        async with await psycopg.AsyncConnection.connect(self._database, password=password) as connection:
            cursor = await connection.execute("SELECT digest FROM layers")
            known = {digest for (digest,) in await cursor.fetchall()}
        if lost := set(announced(load)) - known:
            raise RuntimeError(f"{len(lost)} of {load.count} notifications were answered and are not in the journal")
