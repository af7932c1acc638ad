"""Publishing into a native repository, beside GNU tar, which unpacks the same archives to the same disk.

And what clients transfer of its catalogs, whatever the number of files.
"""

import asyncio
import itertools
import random
import shutil
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from harness.bench.measure import Row, Target, compare
from harness.bench.publishing import add_file, open_repository, publish_timed, publish_tiny, verified_layer
from harness.commands import run
from services.common.digest import Digest
from services.common.layout import layer_tree
from services.common.repository_name import RepositoryName
from services.repository.native.reader.footprint import START, footprint
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles

__all__ = ["native"]

_NAME: Final = RepositoryName("bench.example.org")
_SYSTEM: Final = (Path("/usr/lib/python3"), Path("/usr/lib/gcc"))
"""What the large archive holds, as far as the machine has it."""
_SMALL_FILES: Final = 30_000
_BATCH: Final = 100
_MANY: Final = 10_000
"""Layers that are there before the last figures of the growing repository."""
_MORE_FILES: Final = (0, 25_000, 131_000)
"""Of the images whose start is looked at: 7,000, 32,000 and 138,000 entries."""
_AT_ONCE: Final = 500


async def native(directory: Path, runs: int, *, rootfs: Path) -> list[Row]:
    """Measure new content, small files, known content, a batch, a repository that grows, and what a start transfers.

    Parameters
    ----------
    directory
        Is made, and holds everything.
    runs
        Figures that count.
    rootfs
        A tar of a Debian root file system.
    """
    bench = _Bench(directory)
    await asyncio.to_thread(bench.make)
    return [
        await bench.row("native, new content", bench.large, runs, limit=1.3),
        await bench.row(f"native, {_SMALL_FILES} small files", bench.small, runs, limit=_SMALL_FILES / 12_000),
        await bench.known(runs),
        await bench.batch(runs),
        await bench.growth(runs),
        await bench.start(rootfs),
    ]


class _Bench:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self._keys = KeyFiles(directory / "keys", _NAME)
        self.large = directory / "large.tar"
        self.small = directory / "small.tar"

    def make(self) -> None:
        """Make the two archives."""
        self._directory.mkdir()
        with tarfile.open(self.large, "w") as tar:
            for place in _SYSTEM:
                if place.exists():
                    tar.add(place, place.name)
        chance = random.Random(1)  # noqa: S311 - the same archive every time
        content = self.large.read_bytes()
        with tarfile.open(self.small, "w") as tar:
            for number in range(_SMALL_FILES):
                size = chance.randint(1024, 8192)
                begin = chance.randint(0, len(content) - size)
                add_file(tar, f"{number // 100}/{number}", content[begin : begin + size])

    async def row(self, name: str, archive: Path, runs: int, *, limit: float) -> Row:
        """Publish an archive into an empty repository."""

        async def publish() -> float:
            async with self._opened() as repository:
                return await publish_timed(repository, [verified_layer(archive)])

        return await compare(
            name,
            {"tar -x": lambda: self._unpack(archive), "native": publish},
            runs=runs,
            targets=(Target(subject="native", limit=limit),),
        )

    async def known(self, runs: int) -> Row:
        """Publish the large archive's files in other layers, when they are known."""
        async with self._opened() as repository:
            await publish_timed(repository, [verified_layer(self.large)])

            async def publish() -> float:
                archive = await asyncio.to_thread(self._variant)
                return await publish_timed(repository, [verified_layer(archive)])

            return await compare(
                "native, the same content again",
                {"tar -x": lambda: self._unpack(self.large), "native": publish},
                runs=runs,
                targets=(Target(subject="native", limit=0.3),),
            )

    async def batch(self, runs: int) -> Row:
        """Publish a hundred small layers as one revision."""
        async with self._opened() as repository:
            return await compare(
                f"native, {_BATCH} layers in a batch",
                {"native": lambda: self._publish_tiny(repository, _BATCH)},
                runs=runs,
                targets=(Target(subject="native", limit=1.5),),
            )

    async def growth(self, runs: int) -> Row:
        """Publish one layer after a hundred, and after ten thousand, into repositories that differ in that only."""
        async with self._opened() as few, self._opened() as many:
            await self._publish_tiny(few, _BATCH)
            for _ in range(_MANY // _AT_ONCE):
                await self._publish_tiny(many, _AT_ONCE)
            subjects: dict[str, Callable[[], Awaitable[float]]] = {
                f"after {_BATCH}": lambda: self._publish_tiny(few, 1),
                f"after {_MANY}": lambda: self._publish_tiny(many, 1),
            }
            target = Target(subject=f"after {_MANY}", over=f"after {_BATCH}", limit=1.2)
            return await compare("native, one layer more", subjects, runs=4 * runs, targets=(target,))

    async def start(self, rootfs: Path) -> Row:
        """Count the catalogs that a container's start transfers, of images that differ in their number of files."""
        samples = {}
        for more in _MORE_FILES:
            archive = await asyncio.to_thread(self._grown, rootfs, more)
            layer, place = verified_layer(archive), self._place()
            async with self._opened(place) as repository:
                await publish_timed(repository, [layer])
            samples[f"Debian + {more}"] = [await asyncio.to_thread(self._transferred, place, layer.digest) / 1000]
        smallest, *_, largest = samples
        return Row(
            name="native, catalogs of a start",
            samples=samples,
            unit="kB",
            targets=(
                *(Target(subject=subject, limit=1500) for subject in samples),
                Target(subject=largest, over=smallest, limit=1.1),
            ),
        )

    def _grown(self, rootfs: Path, more: int) -> Path:
        """Return an archive of a root file system, and so many more files, in packages of every size."""
        archive = self._place()
        shutil.copyfile(rootfs, archive)
        chance = random.Random(2)  # noqa: S311 - the same archive every time
        with tarfile.open(archive, "a") as tar:
            while more:
                size = min(more, int(20 * chance.paretovariate(1.1)))
                for number in range(size):
                    name = f"./usr/lib/python3/dist-packages/p{more}/{number // 30}/{number}.py"
                    add_file(tar, name, f"{number % 1000}".encode())
                more -= size
        return archive

    def _transferred(self, place: Path, layer: Digest) -> int:
        storage = DirectoryStorage(place / "repository")
        with RepositoryReader(storage, name=_NAME, master_keys=[self._keys.public.read_bytes()]) as reader:
            root = reader.newest(reader.head()).root
            return footprint(storage, root, [f"/{layer_tree(layer)}".encode()], START).size

    async def _publish_tiny(self, repository: NativeRepository, count: int) -> float:
        return await publish_tiny(repository, [self._place() for _ in range(count)])

    def _variant(self) -> Path:
        """Return an archive with the large one's files and one of its own."""
        archive = self._place()
        archive.write_bytes(self.large.read_bytes())
        with tarfile.open(archive, "a") as tar:
            add_file(tar, "variant", archive.name.encode())
        return archive

    async def _unpack(self, archive: Path) -> float:
        # Nothing is removed in between: ext4 looks at every inode that was freed lately before it takes another.
        place = self._place()
        place.mkdir()
        started = time.perf_counter()
        await run("tar", "-xf", str(archive), "-C", str(place))
        return time.perf_counter() - started

    def _place(self) -> Path:
        return self._directory / str(next(self._numbers))

    @asynccontextmanager
    async def _opened(self, place: Path | None = None) -> AsyncIterator[NativeRepository]:
        """Open an empty repository, its processes started."""
        async with open_repository(place or self._place(), _NAME, self._keys) as repository:
            yield repository
