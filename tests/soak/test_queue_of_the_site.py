"""Ten thousand layers wait for one publisher: how quickly they go, and what that does to it and to who watches it."""

import asyncio
import itertools
import sqlite3
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
from pydantic import SecretStr

from harness.peak_memory import peak_memory, resident_memory
from harness.processes import wait_until
from harness.reliability.figures import Chapter, Curve, Trial
from harness.s3 import S3Access
from services.common.layout import sidecar_path
from services.common.publisher_api.client import PublisherApi
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.publisher import REPOSITORY, TOKEN, PublisherProcess
from tests.support.small_layers import SmallLayer, small_layer, upload_all
from tests.support.soak import Soak

_PUBLISHED: Final = 'publisher_layers{state="published"} '
_SECONDS: Final = 180
"""That the publisher may take; what it has not published by then is not lost, but is still to come."""
_QUEUE_MEMORY: Final = 20e6
"""Bytes that the publisher may take for the layers that wait, however many they are."""
_MEMORY: Final = 300e6
"""Bytes that it may take in all."""
_ANSWER: Final = 3.0
"""Seconds in which 99 of 100 pages are there meanwhile."""
_PAUSE: Final = 0.1
"""Seconds between two looks; each costs the publisher what is measured."""


@dataclass(kw_only=True)
class _Watch:
    """What those see of a publisher who look at its pages while it works."""

    publisher: PublisherProcess
    looks: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds since the beginning, layers published by then, and bytes of memory."""
    answers: dict[str, list[float]] = field(default_factory=lambda: {"/layers": [], "/metrics": []})
    """Seconds that each page took."""

    async def until(self, layers: int) -> int:
        """Look until so many layers are published, or time is over; return how many are."""
        begun = time.monotonic()
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            while True:
                texts = {path: await self._ask(session, path) for path in self.answers}
                lines = texts["/metrics"].splitlines()
                (value,) = (line.removeprefix(_PUBLISHED) for line in lines if line.startswith(_PUBLISHED))
                passed, published = time.monotonic() - begun, int(float(value))
                self.looks.append((passed, published, resident_memory(self.publisher.daemon.pid)))
                if published >= layers or passed > _SECONDS:
                    return published
                await asyncio.sleep(_PAUSE)

    async def _ask(self, session: aiohttp.ClientSession, path: str) -> str:
        begun = time.monotonic()
        async with session.get(f"{self.publisher.url}{path}") as answer:
            text = await answer.text()
        self.answers[path].append(time.monotonic() - begun)
        return text

    def late(self, path: str) -> float:
        """Return the seconds in which 99 of 100 answers came."""
        return statistics.quantiles(self.answers[path], n=100)[98]

    def curves(self, step: int) -> list[Curve]:
        """Return throughput and memory by the layers that are published, in steps of so many."""
        marks = range(0, self.looks[-1][1] + 1, step)
        looks = [next(look for look in self.looks if look[1] >= mark) for mark in marks]
        speeds = [
            (float(mark), (later[1] - earlier[1]) / (later[0] - earlier[0]))
            for mark, (earlier, later) in zip(marks, itertools.pairwise(looks), strict=False)
        ]
        memory = [(float(mark), look[2] / 1e6) for mark, look in zip(marks, looks, strict=True)]
        across = "layers that are published already"
        return [
            Curve(
                chapter=Chapter.LOAD,
                title="Throughput against layers",
                across=across,
                up="layers a second",
                lines={"small layers, native repository in a directory": tuple(speeds)},
            ),
            Curve(
                chapter=Chapter.LOAD,
                title="Memory of the publisher while a queue is published",
                across=across,
                up="MB",
                lines={"publisher": tuple(memory)},
            ),
        ]


async def test_a_queue_of_ten_thousand_layers(soak: Soak, tmp_path: Path, bucket: S3Access) -> None:
    count = soak.pick(200, 10_000)
    layers = await asyncio.to_thread(_make, tmp_path / "layers", count)
    keys = KeyFiles(tmp_path / "keys", REPOSITORY)
    settings = {"PUBLISHER_REPOSITORY_KIND": "native", "PUBLISHER_KEYS": str(tmp_path / "keys")}
    publisher = PublisherProcess(tmp_path / "publisher", bucket, settings)
    storage = DirectoryStorage(publisher.root)
    create_repository(name=REPOSITORY, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={})
    async with publisher.running(), PublisherApi(url=publisher.url, token=SecretStr(TOKEN)) as api:
        await api.pause("until all layers wait")
        await upload_all(bucket, (layer.archive for layer in layers), repository=REPOSITORY)
        before = peak_memory(publisher.daemon.pid)
        sweep = await api.sweep()

        async def swept() -> bool:
            return (await api.status()).sweep.ended >= sweep

        await wait_until(swept, what="all layers wait")
        waiting = peak_memory(publisher.daemon.pid)
        watch = _Watch(publisher=publisher)
        await api.resume()
        published = await watch.until(count)
        most = peak_memory(publisher.daemon.pid)
    lost, unseen = await asyncio.to_thread(_lost, publisher, keys, layers)
    assert waiting - before <= _QUEUE_MEMORY
    assert most <= _MEMORY
    late = {path: watch.late(path) for path in watch.answers}
    assert max(late.values()) <= _ANSWER, late
    soak.record(
        Trial(
            chapter=Chapter.LOAD,
            subject="publisher, native repository in a directory",
            tried=f"{count:,} small layers wait in the bucket when it begins",
            times=count,
            losses={"layers that the journal has lost": lost, "layers said to be published that are not": unseen},
            seen={
                f"published within {_SECONDS} s": published,
                "layers a second": round(published / watch.looks[-1][0], 1),
                "memory for those that wait, MB": round((waiting - before) / 1e6, 1),
                "most memory, MB": round(most / 1e6),
                "page of layers meanwhile, p99, ms": round(late["/layers"] * 1000),
                "metrics meanwhile, p99, ms": round(late["/metrics"] * 1000),
            },
        )
    )
    if soak.full:
        for curve in watch.curves(1000):
            soak.record(curve)


def _make(directory: Path, count: int) -> Sequence[SmallLayer]:
    directory.mkdir()
    return [small_layer(directory, number) for number in range(count)]


def _lost(publisher: PublisherProcess, keys: KeyFiles, layers: Sequence[SmallLayer]) -> tuple[int, int]:
    """Return how many layers the journal does not have, and how many it calls published that the repository lacks."""
    with closing(sqlite3.connect(publisher.state / "journal.sqlite")) as journal:
        states = dict(journal.execute("SELECT digest, state FROM layers"))
    with RepositoryReader(
        DirectoryStorage(publisher.root), name=REPOSITORY, master_keys=[keys.public.read_bytes()]
    ) as reader:
        revision = reader.newest(reader.head())
        unseen = sum(
            revision.stat(f"/{sidecar_path(layer.digest)}".encode()) is None
            for layer in layers
            if states.get(layer.digest) == "published"
        )
    return sum(layer.digest not in states for layer in layers), unseen
