"""A thousand layers a second are announced to one publisher, and to two: none is lost, and each is answered soon."""

import asyncio
import sqlite3
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from harness.bench.event_load import EventLoad, LoadResult, announced, post_events
from harness.peak_memory import peak_memory
from harness.postgresql import PostgresqlServer
from harness.reliability.figures import Chapter, Curve, Trial
from harness.s3 import S3Access
from services.common.publisher_api.client import PublisherApi
from services.repository.native.trust.keyring import KeyFiles
from tests.support.bucket_site import BucketSite
from tests.support.publisher import REPOSITORY, TOKEN, PublisherProcess
from tests.support.soak import Soak

_RATE = 1000
"""Notifications in a second."""
_RATES = (100, 300, 1000, 2000)
_ANSWER = 5.0
"""Seconds in which 99 of 100 are answered; MinIO gives up after ten, and sends again."""


class _Site:
    """Publishers that share a journal, and do nothing but write down what is announced.

    Parameters
    ----------
    publishers
        They run.
    journal
        Reads the digests of all layers of the journal.
    """

    def __init__(self, publishers: Sequence[PublisherProcess], journal: "_Journal") -> None:
        self.publishers = publishers
        self._journal = journal

    async def post(self, name: str, *, rate: int, seconds: float) -> tuple[LoadResult, int]:
        """Announce layers; return how that went, and how many the journal does not know afterwards."""
        load = EventLoad(
            addresses=[("127.0.0.1", publisher.port) for publisher in self.publishers],
            token=TOKEN,
            bucket=self.publishers[0].access.bucket,
            name=name,
            rate=rate,
            count=int(rate * seconds),
        )
        result = await post_events(load)
        known = await asyncio.to_thread(self._journal.digests)
        return result, len(set(announced(load)) - known)


class _Journal:
    """Reads a journal from outside.

    Parameters
    ----------
    file
        Its file.
    database
        Its URL, where it is no file.
    password
        Of the database.
    """

    def __init__(self, file: Path, database: str | None, password: SecretStr | None) -> None:
        self._file = file
        self._database = database
        self._password = password

    def digests(self) -> set[str]:
        """Return the digests of all layers (blocking)."""
        statement = "SELECT digest FROM layers"
        if self._database is None:
            with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as file:
                return {digest for (digest,) in file.execute(statement)}
        assert self._password is not None
        with psycopg.connect(self._database, password=self._password.get_secret_value()) as connection:
            return {digest for (digest,) in connection.execute(statement)}


@pytest.fixture(params=[1, 2], ids=["one publisher", "two publishers"])
async def site(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    bucket: S3Access,
    postgresql: PostgresqlServer,
    new_database: str,
) -> AsyncIterator[_Site]:
    """One publisher with its journal in a file, or two that have it in PostgreSQL; all are paused."""
    if request.param == 1:
        async with _paused(PublisherProcess(tmp_path / "publisher", bucket)) as publisher:
            yield _Site([publisher], _Journal(publisher.state / "journal.sqlite", None, None))
        return
    keys = KeyFiles(tmp_path / "keys", REPOSITORY)
    await asyncio.to_thread(BucketSite(access=bucket, keys=keys, state=tmp_path / "state", name=REPOSITORY).create)
    settings = {
        **bucket.repository_environment,
        "REPOSITORY_STORE_PREFIX": "cvmfs/",
        "PUBLISHER_REPOSITORY_KIND": "native",
        "PUBLISHER_DIRECTORY": "",
        "PUBLISHER_KEYS": str(tmp_path / "keys"),
        "PUBLISHER_DATABASE": new_database,
        "PUBLISHER_DATABASE_PASSWORD_FILE": str(postgresql.password_file),
    }
    first, second = (PublisherProcess(tmp_path / name, bucket, settings) for name in ("first", "second"))
    async with _paused(first), second.running():
        yield _Site([first, second], _Journal(tmp_path, new_database, postgresql.password))


@asynccontextmanager
async def _paused(publisher: PublisherProcess) -> AsyncIterator[PublisherProcess]:
    async with publisher.running(), PublisherApi(url=publisher.url, token=SecretStr(TOKEN)) as api:
        await api.pause("layers are announced that do not exist")
        yield publisher


async def test_a_thousand_notifications_a_second(soak: Soak, site: _Site) -> None:
    await site.post("warm up", rate=_RATE, seconds=soak.pick(0.1, 2))
    result, lost = await site.post("load", rate=_RATE, seconds=soak.pick(1, 60))
    hundredths = statistics.quantiles(result.latencies, n=100)
    assert hundredths[98] <= _ANSWER, f"p99 is {hundredths[98]:.2f} s"
    count = len(site.publishers)
    soak.record(
        Trial(
            chapter=Chapter.LOAD,
            subject="publisher, journal in a file" if count == 1 else f"{count} publishers, journal in PostgreSQL",
            tried=f"{_RATE:,} notifications a second, for {soak.pick(1, 60)} s",
            times=len(result.latencies),
            losses={"notifications answered and lost": lost},
            seen={
                "answer, p50, ms": round(hundredths[49] * 1000, 1),
                "answer, p99, ms": round(hundredths[98] * 1000, 1),
                "longest answer, ms": round(max(result.latencies) * 1000, 1),
                "most memory of a publisher, MB": round(
                    max(peak_memory(publisher.daemon.pid) for publisher in site.publishers) / 1e6
                ),
            },
        )
    )
    if not soak.full:
        return
    p50, p99 = list[tuple[float, float]](), list[tuple[float, float]]()
    for rate in _RATES:
        result, lost = await site.post(f"rate {rate}", rate=rate, seconds=5)
        assert not lost
        hundredths = statistics.quantiles(result.latencies, n=100)
        p50.append((rate, hundredths[49] * 1000))
        p99.append((rate, hundredths[98] * 1000))
    soak.record(
        Curve(
            chapter=Chapter.LOAD,
            title=f"Answers to notifications, {'one publisher' if count == 1 else f'{count} publishers'}",
            across="notifications a second",
            up="time to the answer, ms",
            lines={"half of them": tuple(p50), "99 of 100": tuple(p99)},
        )
    )
