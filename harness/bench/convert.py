"""Images from a registry until a native repository shows them: a large one, many at once, changed and pushed ones."""

import asyncio
import itertools
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from harness.bench.image_site import NAME, ImageSite, open_image_site
from harness.bench.measure import Row, Target, compare
from harness.bench.mixed_images import MixedLayer, stage_image, write_layer
from harness.bench.publishing import open_repository, publish_timed
from harness.commands import run
from harness.converter import Converter
from harness.registry import Registry
from services.repository.native.trust.keyring import KeyFiles

__all__ = ["convert"]

_LAYERS: Final = (10, 8, 7, 6, 5, 5, 4, 3, 1, 1)
"""Parts of each layer of the large image, from the lowest one."""
_PARTS: Final = sum(_LAYERS)
"""As many images have a part each, so that together they have the bytes of the large one."""
_MIDDLE: Final = 6
"""A layer in the middle."""
_ONCE: Final = 1.2
_MANY: Final = 1 / 0.9
"""Of the time that one image of the same bytes takes."""
_CHANGED: Final = 1.0
"""Seconds beyond the transfer."""
_BESIDES: Final = 10
"""kB: a manifest and a configuration come with a changed layer."""
_PUSHED: Final = 11_500_000
"""Bytes of a pushed layer's files; its archive has some 5 MB."""
_HEARD: Final = 2.0
"""Seconds."""
_WARM: Final = 500_000
"""Bytes of the files of an image that is published before anything is measured: processes are started, then."""

_PATIENCE: Final = 900
"""Seconds that a copy may take."""
_BLOCK: Final = 1 << 20

_WISHES: Final = """\
version: 2
defaults: {{repositories: {repository}, interval: 1d}}
images:
  - image: {registry}/bench/pushed:moving
"""


async def convert(directory: Path, runs: int, *, rootfs: Path, megabytes: int) -> list[Row]:
    """Measure conversions; all from one registry, which announces what is pushed.

    Parameters
    ----------
    directory
        Is made, and holds everything. Nothing is removed between runs but copies of few files.
    runs
        Figures that count.
    rootfs
        A tar of a Debian root file system.
    megabytes
        Size of the large image's files.
    """
    directory.mkdir()
    registry = Registry(directory / "registry")
    bench = _Bench(directory, registry.address, rootfs=rootfs, part=megabytes * 1_000_000 // _PARTS)
    try:
        async with open_image_site(directory / "changing", registry.address) as site:
            converter = Converter(directory=directory / "converter", stratum0=site.stratum0, registry=registry)
            await registry.start()
            await bench.push()
            rows = await bench.changed(site, registry, runs)
            try:
                await converter.start(_WISHES.format(repository=NAME, registry=registry.address))
                rows.append(await bench.pushed(site, runs))
            finally:
                await converter.close()
        return [await bench.whole(f"{megabytes} MB from a registry to visible", runs), *rows]
    finally:
        await registry.close()


class _Bench:
    def __init__(self, directory: Path, registry: str, *, rootfs: Path, part: int) -> None:
        self._directory = directory
        self._registry = registry
        self._rootfs = rootfs
        self._part = part
        self._places = itertools.count()
        self._fresh = itertools.count(_PARTS)
        """Numbers of parts that no image has yet."""
        self._large: list[MixedLayer] = []
        self._small: list[MixedLayer] = []
        """The layers of the large image, and those of as many images as it has parts."""
        self._warm: list[MixedLayer] = []

    @property
    def _image(self) -> str:
        return f"{self._registry}/bench/large:1"

    @property
    def _images(self) -> list[str]:
        return [f"{self._registry}/bench/small{number}:1" for number in range(_PARTS)]

    async def push(self) -> None:
        """Make the images that do not change, and push them."""
        parts = iter(range(_PARTS))
        for count in _LAYERS:
            self._large.append(await self._layer(list(itertools.islice(parts, count))))
        self._warm = [await self._new(_WARM) for _ in range(4)]
        await (await stage_image(self._registry, "bench/large", self._large)).put("1")
        await (await stage_image(self._registry, "bench/warm", self._warm)).put("1")
        for part in range(_PARTS):
            layer = await self._layer([part])
            self._small.append(layer)
            await (await stage_image(self._registry, f"bench/small{part}", [layer])).put("1")

    async def whole(self, name: str, runs: int) -> Row:
        """Publish the large image into an empty repository, and as many images with the same bytes at once.

        Beside that stand what its user would do first, a copy to a directory, and what nothing can be quicker than: its
        layers, on disk already, published by nobody else than the repository.
        """
        keys = KeyFiles(self._directory / "keys", NAME)
        copy = self._directory / "copy"

        async def skopeo() -> float:
            started = time.perf_counter()
            source = f"docker://{self._image}"
            await run("skopeo", "copy", "--quiet", "--src-tls-verify=false", source, f"dir:{copy}", timeout=_PATIENCE)
            seconds = time.perf_counter() - started
            await asyncio.to_thread(shutil.rmtree, copy)
            return seconds

        async def alone() -> float:
            async with open_repository(self._place(), NAME, keys) as repository:
                return await publish_timed(repository, [layer.verified for layer in self._large])

        async def publisher(images: Sequence[str], layers: Sequence[MixedLayer]) -> float:
            async with open_image_site(self._place(), self._registry) as site:
                await self._publish(site, [f"{self._registry}/bench/warm:1"], self._warm)
                return await self._publish(site, images, layers)

        many = f"{_PARTS} images at once"
        subjects: dict[str, Callable[[], Awaitable[float]]] = {
            "skopeo copy": skopeo,
            "its layers alone": alone,
            "one image": lambda: publisher([self._image], self._large),
            many: lambda: publisher(self._images, self._small),
        }
        row = await compare(name, subjects, runs=runs)
        slower = max(("skopeo copy", "its layers alone"), key=row.median)
        once = Target(subject="one image", over=slower, limit=_ONCE)
        return replace(row, targets=(once, Target(subject=many, over="one image", limit=_MANY)))

    async def changed(self, site: ImageSite, registry: Registry, runs: int) -> list[Row]:
        """Publish the large image with another layer, the top one or one in the middle, where it is published.

        Parameters
        ----------
        registry
            The registry, which says what it has sent.
        """
        await self._publish(site, [self._image], self._large)
        besides = list[float]()

        async def once(changed: int) -> float:
            layer = await self._new(_LAYERS[changed] * self._part)
            layers = [layer if place == changed else other for place, other in enumerate(self._large)]
            image = await (await stage_image(self._registry, "bench/large", layers)).put("moving")
            before = registry.sent()
            transfer = await self._transfer(layer)
            seconds = await self._publish(site, [image], [layer])
            # It was sent twice. The first time is said in the log when that has ended, which nobody waits for.
            besides.append((registry.sent() - before - 2 * layer.size) / 1000)
            return seconds - transfer

        row = await compare(
            "changed layer, beyond its transfer",
            {"top layer": lambda: once(len(_LAYERS) - 1), "middle layer": lambda: once(_MIDDLE)},
            runs=runs,
            targets=(Target(subject="top layer", limit=_CHANGED),),
        )
        traffic = Row(
            name="sent besides a changed layer of ten",
            unit="kB",
            samples={"registry": [max(besides)]},
            targets=(Target(subject="registry", limit=_BESIDES),),
        )
        return [row, traffic]

    async def pushed(self, site: ImageSite, runs: int) -> Row:
        """Move a tag, and wait until the image is visible, of which only the registry tells the converter."""

        async def once() -> float:
            layer = await self._new(_PUSHED)
            image = await stage_image(self._registry, "bench/pushed", [*self._warm, layer])
            started = time.perf_counter()
            name = await image.put("moving")
            await site.visible([name], [layer])
            return time.perf_counter() - started

        return await compare(
            "webhook to visible, 5 MB layer",
            {"webhook": once},
            runs=3 * runs,
            targets=(Target(subject="webhook", limit=_HEARD),),
        )

    async def _publish(self, site: ImageSite, images: Sequence[str], layers: Sequence[MixedLayer]) -> float:
        started = time.perf_counter()
        await site.publish(images, layers)
        return time.perf_counter() - started

    async def _transfer(self, layer: MixedLayer) -> float:
        """Download a layer to a file; return the seconds."""
        url = f"http://{self._registry}/v2/bench/large/blobs/{layer.digest.oci}"
        return await asyncio.to_thread(_download, url, self._place())

    async def _new(self, size: int) -> MixedLayer:
        """Write a layer that no image has yet."""
        return await self._layer([next(self._fresh)], size)

    async def _layer(self, parts: Sequence[int], size: int | None = None) -> MixedLayer:
        return await asyncio.to_thread(
            write_layer, self._place(), rootfs=self._rootfs, parts=parts, size=size or self._part
        )

    def _place(self) -> Path:
        return self._directory / str(next(self._places))


def _download(url: str, destination: Path) -> float:
    started = time.perf_counter()
    with urlopen(url, timeout=_PATIENCE) as response, destination.open("wb") as file:  # noqa: S310 - the registry's
        shutil.copyfileobj(response, file, _BLOCK)
    return time.perf_counter() - started
