import asyncio
import gzip
import hashlib
import random
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from harness.bench.mixed_images import stage_image, write_layer
from harness.registry import Registry

_SIZE = 300_000
"""Bytes of a part's files."""


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs"
    path.write_bytes(random.Random(1).randbytes(3 << 20))  # noqa: S311 - the same bytes every time
    return path


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = Registry(tmp_path / "registry")
    await registry.start()
    yield registry
    await registry.close()


def _files(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar]
        return {name: file.read() for name, file in members if file is not None}


def test_a_layer_is_described_as_it_is(tmp_path: Path, rootfs: Path) -> None:
    layer = write_layer(tmp_path / "layer", rootfs=rootfs, parts=[1, 2], size=_SIZE)
    archive = layer.path.read_bytes()
    tar = gzip.decompress(archive)
    assert (layer.digest, layer.size) == (hashlib.sha256(archive).hexdigest(), len(archive))
    assert (layer.diff_id, layer.uncompressed_size) == (hashlib.sha256(tar).hexdigest(), len(tar))
    assert sum(map(len, _files(layer.path).values())) == 2 * _SIZE


def test_a_part_is_the_same_in_every_layer_and_like_no_other(tmp_path: Path, rootfs: Path) -> None:
    layers = [
        write_layer(tmp_path / str(number), rootfs=rootfs, parts=parts, size=_SIZE)
        for number, parts in enumerate(([1, 2], [1], [2]))
    ]
    whole, first, second = (_files(layer.path) for layer in layers)
    assert whole == first | second
    assert len(set(whole.values())) == len(whole)


async def test_a_registry_gets_an_image_and_tells_what_it_has_sent(
    tmp_path: Path, rootfs: Path, registry: Registry
) -> None:
    layer = await asyncio.to_thread(write_layer, tmp_path / "layer", rootfs=rootfs, parts=[1], size=_SIZE)
    image = await stage_image(registry.address, "bench/image", [layer])
    name = await image.put("tag")
    assert name == f"{registry.address}/bench/image:tag"
    assert registry.sent() == 0
    place = f"http://{registry.address}/v2/bench/image"
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        async with session.get(f"{place}/manifests/tag", headers=accept) as response:
            assert await response.read() == image.manifest
        async with session.get(f"{place}/blobs/{layer.digest.oci}") as response:
            assert await response.read() == layer.path.read_bytes()
    # It writes its log after it has answered.
    async with asyncio.timeout(300):
        while registry.sent() < len(image.manifest) + layer.size:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
    assert registry.sent() == len(image.manifest) + layer.size
