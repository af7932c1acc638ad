"""Publishers, object store and database are killed: no layer is lost, half visible or published twice."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from harness.postgresql import PostgresqlServer
from harness.reliability.figures import Chapter, Trial
from harness.s3 import S3Access
from harness.seaweedfs import SeaweedFS
from services.common.digest import Digest
from tests.support.layer_flow import LayerFlow
from tests.support.publisher_site import PublisherSite
from tests.support.soak import Soak
from tests.support.witness import History, Witness

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the one that the servers were started in

_PER_SECOND: Final = 6
_LONGEST: Final = 0.6
"""Most seconds between everything going on and the next kill."""
_AGAIN: Final = 0.25
"""How often a publisher is killed once more while it starts."""
_START: Final = 0.4
"""Within how many seconds that is."""


@dataclass(kw_only=True)
class _Storm:
    """Kills at random moments, and what has come out."""

    soak: Soak
    site: PublisherSite
    flow: LayerFlow
    witness: Witness
    kills: dict[str, int] = field(default_factory=dict)
    recovery: dict[str, list[float]] = field(default_factory=dict)
    forgotten: set[Digest] = field(default_factory=set)
    """Layers whose announcement was answered, and that the journal does not have."""

    async def rage(self, strikes: Mapping[str, tuple[int, Callable[[], Awaitable[float]]]]) -> None:
        """Kill, each so often, and wait each time until something more is published."""
        order = [name for name, (times, _) in strikes.items() for _ in range(times)]
        self.soak.random.shuffle(order)
        async with self.flow.flowing():
            await self.witness.news(what="before the first kill")
            for name in order:
                await asyncio.sleep(self.soak.random.uniform(0, _LONGEST))
                answered = set(self.flow.answered)
                restart = await strikes[name][1]()
                self.kills[name] = self.kills.get(name, 0) + 1
                self.forgotten |= answered - await asyncio.to_thread(self.site.journaled)
                seen = await self.witness.news(what=f"after the {name} was killed")
                self.recovery.setdefault(name, []).append(seen - restart)

    async def publisher(self) -> float:
        """Kill a publisher, now and then while it starts."""
        publisher = self.soak.random.choice(self.site.publishers)
        await publisher.kill()
        if self.soak.random.random() < _AGAIN:
            await asyncio.sleep(self.soak.random.uniform(0, _START))
            if publisher.daemon.running:
                await publisher.kill()
                self.kills["publisher"] = self.kills.get("publisher", 0) + 1
        return time.monotonic()

    async def judge(self, subject: str) -> None:
        """Wait until everything is published, look at all of it, and record it."""
        ended = time.monotonic()
        await self.witness.sees(self.flow.stored)
        caught_up = time.monotonic() - ended
        history, problems = await asyncio.to_thread(self._read)
        losses = {
            "layers lost": len(self.flow.stored - self.witness.seen.keys()),
            "layers half visible": len(self.witness.half | history.half),
            "layers published twice": len(history.twice),
            "answered notifications gone": len(self.forgotten),
            "problems found by thin-repository check": len(problems),
        }
        seen: dict[str, int | float | str] = {
            "layers published": len(self.witness.seen),
            "revisions read": history.revisions,
            "caught up after the last kill, s": round(caught_up, 1),
        }
        for name, times in self.kills.items():
            self.soak.record(
                Trial(
                    chapter=Chapter.KILLS,
                    subject=f"{name}: {subject}",
                    tried=f"kill -9 at a random moment while {_PER_SECOND} layers a second arrive",
                    times=times,
                    losses=losses,
                    seen=seen,
                    recovery=tuple(self.recovery[name]),
                )
            )

    def _read(self) -> tuple[History, list[str]]:
        with self.site.reader() as reader:
            history = History.read(reader, self.flow.contents)
        return history, self.site.problems()


@asynccontextmanager
async def _storm(soak: Soak, site: PublisherSite, directory: Path) -> AsyncIterator[_Storm]:
    flow = LayerFlow(site, directory, per_second=_PER_SECOND, draw=soak.random)
    witness = Witness(site.reader, lambda: dict(flow.contents))
    async with witness.watching():
        yield _Storm(soak=soak, site=site, flow=flow, witness=witness)


@pytest.fixture
def database(postgresql: PostgresqlServer) -> Callable[[], Awaitable[float]]:
    """What kills the database."""

    async def kill() -> float:
        await postgresql.crash()
        restart = time.monotonic()
        await postgresql.start()
        return restart

    return kill


@pytest.fixture
def store(seaweedfs: SeaweedFS) -> Callable[[], Awaitable[float]]:
    """What kills the object store."""

    async def kill() -> float:
        await seaweedfs.kill()
        restart = time.monotonic()
        await seaweedfs.start()
        return restart

    return kill


async def test_one_publisher_of_a_bucket(
    soak: Soak, bucket: S3Access, store: Callable[[], Awaitable[float]], tmp_path: Path
) -> None:
    async with (
        PublisherSite.running(tmp_path, bucket, None, publishers=1) as site,
        _storm(soak, site, tmp_path) as storm,
    ):
        await storm.rage({"publisher": (soak.pick(2, 30), storm.publisher), "object store": (soak.pick(0, 8), store)})
        await storm.judge("native repository in a bucket, SQLite")


async def test_one_publisher_of_a_directory(
    soak: Soak,
    bucket: S3Access,
    postgresql: PostgresqlServer,
    new_database: str,
    database: Callable[[], Awaitable[float]],
    tmp_path: Path,
) -> None:
    async with (
        PublisherSite.running(tmp_path, bucket, (postgresql, new_database), publishers=1, bucket=False) as site,
        _storm(soak, site, tmp_path) as storm,
    ):
        await storm.rage({"publisher": (soak.pick(1, 30), storm.publisher), "database": (soak.pick(1, 10), database)})
        await storm.judge("native repository in a directory, PostgreSQL")


async def test_two_publishers(
    soak: Soak,
    bucket: S3Access,
    postgresql: PostgresqlServer,
    new_database: str,
    store: Callable[[], Awaitable[float]],
    database: Callable[[], Awaitable[float]],
    tmp_path: Path,
) -> None:
    async with (
        PublisherSite.running(tmp_path, bucket, (postgresql, new_database), publishers=2) as site,
        _storm(soak, site, tmp_path) as storm,
    ):
        await storm.rage(
            {
                "publisher": (soak.pick(1, 24), storm.publisher),
                "object store": (soak.pick(1, 5), store),
                "database": (soak.pick(0, 8), database),
            }
        )
        await storm.judge("two publishers, native repository in a bucket, PostgreSQL")
