"""Conversion of an image of more than a gigabyte, beside what its user would do first: copy it to a directory."""

import asyncio
import itertools
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from harness.bench.large_image import image_layers, large_image
from harness.bench.measure import Row, Target, compare
from harness.commands import run
from harness.s3 import S3Access, create_bucket, remove_bucket, s3_client
from harness.stratum0 import Stratum0
from services.common.archive.model import LayerArchive, MediaType
from services.common.digest import Digest
from services.common.object_store.store import ObjectStore

__all__ = ["conversion"]

_BLOCK: Final = 1 << 20
_LIMIT: Final = 1.3
_PATIENCE: Final = 300
"""Seconds that the store may be silent."""
_MEMORY: Final = 150
"""MB that the converter may use."""


async def conversion(directory: Path, stratum0: Stratum0, runs: int) -> list[Row]:
    """Bring an image of five layers from a registry to the object store, in two ways; every run has a new bucket.

    Beside them stand what their user would do first, a copy to a directory, and what nothing can be quicker than: the
    same layers, on disk already, sent to the object store without a look at them.
    """
    directory.mkdir()
    async with large_image(directory) as image:
        layers = await asyncio.to_thread(image_layers, directory)
        return await _rows(directory, stratum0, image, layers, runs)


async def _rows(directory: Path, stratum0: Stratum0, image: str, layers: list[Path], runs: int) -> list[Row]:
    numbers = itertools.count()
    peaks: list[float] = []
    copy = directory / "copy"

    @asynccontextmanager
    async def bucket() -> AsyncIterator[S3Access]:
        # SeaweedFS reserves whole volumes for a bucket, a gigabyte of the disk each: kept, they would use it up.
        access = replace(stratum0.store.access, bucket=f"conversion-{next(numbers)}")
        async with s3_client(access) as client:
            if not await create_bucket(client, access.bucket):
                raise RuntimeError(f"the store does not make the bucket {access.bucket}")
            yield access
            await remove_bucket(client, access.bucket)

    async def skopeo() -> float:
        started = time.perf_counter()
        await run("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{image}", f"dir:{copy}")
        seconds = time.perf_counter() - started
        await asyncio.to_thread(shutil.rmtree, copy)
        return seconds

    async def publish() -> float:
        command = (sys.executable, "-m", "harness.bench.peak", "publish", "--insecure", "--no-wait")
        async with bucket() as access:
            started = time.perf_counter()
            ended = await run(*command, image, stratum0.repository, env=access.environment)
            seconds = time.perf_counter() - started
        peaks.append(int(ended.text.split()[-1]) / 1e6)
        return seconds

    async def pull_and_upload() -> float:
        command = (sys.executable, "-m", "services.docker2cvmfs", "pull", "--insecure", "--json")
        async with bucket() as access:
            started = time.perf_counter()
            ended = await run(*command, image, copy)
            async with ObjectStore(settings=access.settings) as store:
                for path in map(Path, json.loads(ended.text)["layers"]):
                    await store.upload(_archive(path), repository=stratum0.repository)
            seconds = time.perf_counter() - started
        await asyncio.to_thread(shutil.rmtree, copy)
        return seconds

    async def upload() -> float:
        async with bucket() as access, s3_client(access) as client:
            started = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for path in layers:
                    parameters = {"Bucket": access.bucket, "Key": path.name}
                    url = await client.generate_presigned_url("put_object", Params=parameters)
                    group.create_task(asyncio.to_thread(_put, path, url))
            return time.perf_counter() - started

    ways = {
        "skopeo copy": skopeo,
        "docker2cvmfs publish": publish,
        "pull, then upload": pull_and_upload,
        "upload alone": upload,
    }
    over = Target(subject="docker2cvmfs publish", over="skopeo copy", limit=_LIMIT)
    row = await compare("conversion of a 1.2 GB image", ways, runs=runs, targets=(over,))
    target = Target(subject="docker2cvmfs publish", limit=_MEMORY)
    samples = {"docker2cvmfs publish": [max(peaks)]}
    return [row, Row(name="peak memory, conversion of 1.2 GB", unit="MB", samples=samples, targets=(target,))]


def _put(path: Path, url: str) -> None:
    """Send a file to a presigned URL (blocking)."""
    place = urlsplit(url)
    connection = HTTPConnection(place.netloc, timeout=_PATIENCE, blocksize=_BLOCK)
    try:
        with path.open("rb") as file:
            headers = {"Content-Length": str(path.stat().st_size)}
            connection.request("PUT", f"{place.path}?{place.query}", body=file, headers=headers)
        status = connection.getresponse().status
        if status != HTTPStatus.OK:
            raise RuntimeError(f"the store does not take {path.name}: HTTP {status}")
    finally:
        connection.close()


def _archive(path: Path) -> LayerArchive:
    digest = Digest(path.name.partition(".")[0])
    size = path.stat().st_size
    return LayerArchive(
        path=path, digest=digest, diff_id=digest, size=size, uncompressed_size=size, media_type=MediaType.TAR
    )
