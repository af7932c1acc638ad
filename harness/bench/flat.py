"""Flat images in native repositories: composed of what the layers' catalogs say, beside programs that copy files.

These are GNU tar and umoci, which unpack the same layers, and a copy of what they have unpacked.
"""

import asyncio
import itertools
import os
import random
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from harness.bench.measure import Row, Target, compare
from harness.bench.memory import resident
from harness.bench.publishing import add_file, open_repository, publish_timed, verified_layer
from harness.commands import run
from harness.peak_memory import peak_memory
from services.common.archive.model import LayerArchive, MediaType
from services.common.repository_name import RepositoryName
from services.repository.native.repository import NativeRepository
from services.repository.native.trust.keyring import KeyFiles
from services.repository.outputs import NO_OUTPUTS, FlatOutput, ImageOutputs, PodmanOutput
from tests.support.images import image_of_layers
from tests.support.oci import write_image

__all__ = ["flat"]

_NAME: Final = RepositoryName("bench.example.org")
_IMAGE: Final = "registry.example.org/bench/image:v1"
_LAYERS: Final = 8
_SIZES: Final = ((30_000, 0.6), (100_000, 2.0))
"""Entries of the images, and the seconds in which a flat image of them is to be there."""
_AGAIN: Final = 0.1
_CHANGED: Final = 1.0
_MORE: Final = 1.15
"""What an image may take with its outputs, of what it takes without."""
_MEMORY: Final = 200
"""MB that composing may add to the publisher's."""
_PATIENCE: Final = 900
"""Seconds that a program may take, on a machine that is busy besides."""
_FLAT: Final = ImageOutputs(flat=FlatOutput())
_ALL: Final = ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())
_PLACES: Final = (
    *("usr/bin", "usr/lib/x86_64-linux-gnu", "usr/lib/python3/dist-packages", "usr/share/doc", "usr/share/zoneinfo"),
    *("usr/include", "opt/conda/lib/python3.11/site-packages", "opt/conda/pkgs", "var/lib/dpkg/info", "srv/app"),
)


async def flat(directory: Path, runs: int) -> list[Row]:
    """Measure flat images of two sizes, one that is there, one whose top layer is another, and what publishing takes.

    Parameters
    ----------
    directory
        Is made, and holds everything.
    runs
        Figures that count.
    """
    bench = _Bench(directory)
    rows = []
    for entries, limit in _SIZES:
        archives = await asyncio.to_thread(bench.make, entries)
        async with bench.opened() as repository:
            rows += await bench.compose(repository, archives, entries, runs, limit=limit)
        rows.append(await bench.publish(archives, entries, runs))
    return rows


class _Bench:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self._keys = KeyFiles(directory / "keys", _NAME)

    def make(self, entries: int) -> list[Path]:
        """Make layers that have so many entries together, some of them at the same paths."""
        place = self._place()
        place.mkdir(parents=True)
        return [_layer(place / f"{number}.tar", number, entries // _LAYERS) for number in range(_LAYERS)]

    async def compose(
        self, repository: NativeRepository, archives: Sequence[Path], entries: int, runs: int, *, limit: float
    ) -> list[Row]:
        """Put flat images of layers that are there."""
        await publish_timed(repository, [verified_layer(archive) for archive in archives])
        before = resident(os.getpid())
        unpacked, oci = self._place(), self._place()
        await self._unpack(archives, unpacked)
        await asyncio.to_thread(write_image, oci, [archive.read_bytes() for archive in archives])

        async def again() -> float:
            return await self._put(repository, archives, [], version=0)

        async def changed() -> float:
            top = await asyncio.to_thread(self._tiny)
            return await self._put(repository, [*archives[:-1], top], [top])

        subjects: dict[str, Callable[[], Awaitable[float]]] = {
            "tar -x": lambda: self._unpack(archives, self._place()),
            "umoci unpack": lambda: _timed("umoci", "raw", "unpack", "--image", f"{oci}:latest", str(self._place())),
            "cp -a --reflink=auto": lambda: _timed("cp", "-a", "--reflink=auto", str(unpacked), str(self._place())),
            "native": lambda: self._put(repository, archives, []),
        }
        name = f"flat, {entries} entries"
        made = await compare(name, subjects, runs=runs, targets=(Target(subject="native", limit=limit),))
        memory = [(peak_memory() / 1e6) - before]
        await self._put(repository, archives, [], version=0)
        return [
            made,
            Row(
                name=f"{name}, memory",
                samples={"native": memory},
                unit="MB",
                targets=(Target(subject="native", limit=_MEMORY),),
            ),
            await compare(f"{name}, again", {"native": again}, runs=runs, targets=(_native(_AGAIN),)),
            await compare(
                f"{name}, with another top layer", {"native": changed}, runs=runs, targets=(_native(_CHANGED),)
            ),
        ]

    async def publish(self, archives: Sequence[Path], entries: int, runs: int) -> Row:
        """Publish an image into an empty repository, with its outputs and without."""

        async def with_outputs(outputs: ImageOutputs) -> float:
            async with self.opened() as repository:
                return await self._put(repository, archives, archives, outputs=outputs)

        return await compare(
            f"flat, {entries} entries, publishing",
            {
                "layers": lambda: with_outputs(NO_OUTPUTS),
                "layers and flat": lambda: with_outputs(_FLAT),
                "layers, flat and podman": lambda: with_outputs(_ALL),
            },
            runs=runs,
            targets=(
                Target(subject="layers and flat", over="layers", limit=_MORE),
                Target(subject="layers, flat and podman", over="layers", limit=_MORE),
            ),
        )

    async def _put(
        self,
        repository: NativeRepository,
        archives: Sequence[Path],
        new: Sequence[Path],
        *,
        version: int | None = None,
        outputs: ImageOutputs = _FLAT,
    ) -> float:
        """Publish an image, and those layers of it that are new; another version is another configuration."""
        number = next(self._numbers) if version is None else version
        layers = await asyncio.to_thread(lambda: [_described(archive) for archive in archives])
        image = image_of_layers(_IMAGE, ("amd64", layers), outputs=outputs, config={"Labels": {"version": str(number)}})
        verified = [await asyncio.to_thread(verified_layer, archive) for archive in new]
        started = time.perf_counter()
        prepared = await asyncio.gather(*map(repository.prepare, verified))
        async with repository.transaction("bench") as transaction:
            for layer in prepared:
                await transaction.add(layer)
            await transaction.put_image(image)
            await transaction.publish()
        seconds = time.perf_counter() - started
        for layer in prepared:
            await repository.discard(layer)
        return seconds

    async def _unpack(self, archives: Sequence[Path], place: Path) -> float:
        place.mkdir()
        started = time.perf_counter()
        for archive in archives:
            await run("tar", "-xf", str(archive), "-C", str(place), timeout=_PATIENCE)
        return time.perf_counter() - started

    def _tiny(self) -> Path:
        """Return the archive of another top layer."""
        archive = self._place()
        with tarfile.open(archive, "w") as tar:
            add_file(tar, "srv/app/version", archive.name.encode())
        return archive

    def _place(self) -> Path:
        return self._directory / f"place-{next(self._numbers)}"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[NativeRepository]:
        """Open an empty repository, its processes started."""
        async with open_repository(self._place(), _NAME, self._keys) as repository:
            yield repository


def _native(limit: float) -> Target:
    return Target(subject="native", limit=limit)


async def _timed(*command: str) -> float:
    started = time.perf_counter()
    await run(*command, timeout=_PATIENCE)
    return time.perf_counter() - started


def _layer(archive: Path, number: int, entries: int) -> Path:
    chance = random.Random(number)  # noqa: S311 - the same archive every time
    made: set[str] = set()
    with tarfile.open(archive, "w") as tar:
        while len(made) < entries:
            package = f"{chance.choice(_PLACES)}/{chance.choice('abcdefgh')}{chance.randint(0, 60)}"
            for file in range(min(12, entries - len(made))):
                name = f"{package}/module_{chance.randint(0, 400)}.py"
                if name not in made:
                    made.add(name)
                    add_file(tar, name, f"{number} {file}".encode())
    return archive


def _described(archive: Path) -> LayerArchive:
    layer = verified_layer(archive)
    return LayerArchive(
        path=archive,
        digest=layer.digest,
        diff_id=layer.diff_id,
        size=layer.size,
        uncompressed_size=layer.size,
        media_type=MediaType.TAR,
    )
