"""The journal in PostgreSQL, beside the one in a file: layers through the publisher, and a claim among many layers.

The database syncs its commits to the same disk that SQLite's file is on.
"""

import asyncio
import gzip
import hashlib
import io
import itertools
import statistics
import tarfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.bench.measure import Row, Target, compare
from harness.bench.publisher_site import NAME, BenchPublisher, PublisherSite, open_publisher_site
from harness.bench.publishing import add_file
from services.common.archive.model import LayerArchive, MediaType
from services.common.digest import Digest
from services.common.layout import sidecar_path
from services.common.object_store.store import ObjectStore
from services.publisher.journal.journal import Journal
from services.publisher.journal.postgresql import PostgresqlDatabase

__all__ = ["databases", "small_layer"]

_FILE: Final = "SQLite"
_SERVER: Final = "PostgreSQL"
_MANY: Final = 100
_WAITING: Final = 100_000
_CLAIMS: Final = 200
"""Of a run."""
_P50: Final = "claim, p50"
_P99: Final = "claim, p99"
_CLAIM_LIMIT: Final = 3000
"""Of a claim, in microseconds."""
_PATIENCE: Final = 300
"""Seconds that anything may take."""
_POLL: Final = 0.002
"""Seconds between two looks at what is published."""


async def databases(directory: Path, runs: int) -> list[Row]:
    """Measure one layer from its upload to its being visible, a hundred from their notifications on, and claims.

    Parameters
    ----------
    directory
        Is made, and holds everything.
    runs
        Figures that count.
    """
    async with open_publisher_site(directory) as site:
        return [*await _layers(site, runs), await _claims(site, runs)]


async def _layers(site: PublisherSite, runs: int) -> list[Row]:
    async with AsyncExitStack() as stack:
        subjects = {
            name: await stack.enter_async_context(_subject(site, name, database))
            for name, database in ((_FILE, None), (_SERVER, await site.postgresql.create("layers")))
        }
        return [
            await compare(
                "one small layer, upload to visible",
                {name: subject.one for name, subject in subjects.items()},
                runs=6 * runs,
                targets=(Target(subject=_SERVER, over=_FILE, limit=1.1),),
            ),
            await compare(
                f"{_MANY} small layers, announced to visible",
                {name: subject.many for name, subject in subjects.items()},
                runs=2 * runs,
                targets=(Target(subject=_SERVER, over=_FILE, limit=1.05),),
            ),
        ]


@asynccontextmanager
async def _subject(site: PublisherSite, name: str, database: str | None) -> AsyncIterator["_Subject"]:
    """Start a publisher of a directory, whose journal is in a file or in a database."""
    root = site.directory / f"repository-{name}"
    access = await site.bucket(name.lower())
    publisher = site.publisher(name, access, database=database, settings={"PUBLISHER_DIRECTORY": str(root)})
    await publisher.start()
    try:
        archives = site.directory / f"layers-{name}"
        archives.mkdir()
        async with ObjectStore(settings=access.settings) as store:
            yield _Subject(publisher=publisher, root=root, store=store, archives=archives)
    finally:
        await publisher.daemon.stop()


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """One publisher, and what it is given."""

    publisher: BenchPublisher
    root: Path
    store: ObjectStore
    archives: Path
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def one(self) -> float:
        """Upload and announce one layer."""
        (layer,) = self._make(1)
        begun = time.perf_counter()
        await self.store.upload(layer, repository=NAME)
        await self.publisher.announce([layer.digest])
        await self._visible([layer])
        return time.perf_counter() - begun

    async def many(self) -> float:
        """Announce a hundred layers that have been uploaded."""
        layers = self._make(_MANY)
        for layer in layers:
            await self.store.upload(layer, repository=NAME)
        begun = time.perf_counter()
        await self.publisher.announce([layer.digest for layer in layers])
        await self._visible(layers)
        return time.perf_counter() - begun

    def _make(self, count: int) -> list[LayerArchive]:
        return [small_layer(self.archives, f"{self.archives.name} {next(self.numbers)}") for _ in range(count)]

    async def _visible(self, layers: Sequence[LayerArchive]) -> None:
        left = [self.root / sidecar_path(layer.digest) for layer in layers]
        async with asyncio.timeout(_PATIENCE):
            while left := [path for path in left if not path.exists()]:  # noqa: ASYNC110 - another process makes them
                await asyncio.sleep(_POLL)


def small_layer(directory: Path, content: str) -> LayerArchive:
    """Write a layer of one small file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        add_file(tar, "file", content.encode())
    tarred = stream.getvalue()
    compressed = gzip.compress(tarred, mtime=0)
    digest = Digest(hashlib.sha256(compressed).hexdigest())
    path = directory / digest
    path.write_bytes(compressed)
    return LayerArchive(
        path=path,
        digest=digest,
        diff_id=Digest(hashlib.sha256(tarred).hexdigest()),
        size=len(compressed),
        uncompressed_size=len(tarred),
        media_type=MediaType.TAR_GZIP,
    )


async def _claims(site: PublisherSite, runs: int) -> Row:
    """Claim layers one after the other, of a hundred thousand that wait."""
    database = PostgresqlDatabase(await site.postgresql.create("claims"), password=site.postgresql.password)
    samples: dict[str, list[float]] = {_P50: [], _P99: []}
    async with Journal(database) as journal:
        waiting = _WAITING + (runs + 1) * _CLAIMS
        await journal.announce(Digest(f"{number:064x}") for number in range(waiting))
        for turn in range(runs + 1):
            times = []
            for _ in range(_CLAIMS):
                begun = time.perf_counter()
                claimed = await journal.claim()
                times.append((time.perf_counter() - begun) * 1e6)
                if claimed is None:
                    raise RuntimeError(f"of {waiting} layers that wait, none can be claimed")
            if turn:
                samples[_P50].append(statistics.median(times))
                samples[_P99].append(statistics.quantiles(times, n=100)[98])
    return Row(
        name=f"claim among {_WAITING} waiting layers",
        samples=samples,
        unit="µs",
        targets=tuple(Target(subject=subject, limit=_CLAIM_LIMIT) for subject in samples),
    )
