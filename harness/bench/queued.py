"""A queue of small layers, published through `cvmfs_server` by the publisher and by hand.

The program is the tests' stand-in, whose transactions take tenths of a second where real ones take seconds. What a
publisher adds to them shows all the more.
"""

import asyncio
import hashlib
import itertools
import os
import shlex
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from harness.bench.measure import Row, Target, compare
from harness.commands import run
from harness.http import answers
from harness.ports import free_ports
from harness.processes import Daemon, wait_until
from harness.s3 import S3Access, create_bucket, remove_bucket, s3_client
from harness.stratum0 import Stratum0
from harness.trees import Tree, differences, read_directory
from services.common.layout import sidecar_path
from services.common.object_store.store import ObjectStore
from services.common.publisher_api.client import PublisherApi
from services.common.repository_name import RepositoryName
from tests.support.cvmfs_server.standin import StandIn
from tests.support.small_layers import SmallLayer, small_layer

__all__ = ["queued"]

_NAME: Final = RepositoryName("queued.example.org")
_LAYERS: Final = 100
_LIMIT: Final = 1.5
_TOKEN: Final = "the token of a publisher on the loopback interface"  # noqa: S105
_PATIENCE: Final = 120
"""Seconds that anything may take."""
_POLL: Final = 0.005
"""Seconds between two looks at what is published."""
_OWN: Final = b".layers/.publisher-transaction"
"""What nobody makes by hand."""

_BY_HAND: Final = """\
set -e
cd {area}
while read -r digest; do
    home=.layers/$(printf %.2s "$digest")/$digest
    mkdir -p "$home/layerfs"
    tar -xzpf {fetched}/"$digest" -C "$home/layerfs"
    cp {fetched}/"$digest.json" "$home/layer.json"
    touch "$home/.cvmfscatalog"
    ln -s "$home/layerfs" "$digest"
done
"""


async def queued(directory: Path, stratum0: Stratum0, runs: int) -> list[Row]:
    """Publish a hundred small layers that are in the bucket, until all are visible; each time to a new repository.

    By hand they are fetched one after the other over one connection, and published in one transaction. In the end both
    repositories hold the same.

    Parameters
    ----------
    directory
        Is made, and holds everything.
    stratum0
        Whose object store is used.
    runs
        Figures that count.
    """
    directory.mkdir()
    layers = await asyncio.to_thread(lambda: [small_layer(directory, number) for number in range(_LAYERS)])
    return [await _Queue(directory, stratum0.access, layers).row(runs)]


class _Queue:
    """The same layers, published again and again.

    Parameters
    ----------
    directory
        Holds everything.
    access
        Any bucket of the object store.
    layers
        The layers.
    """

    def __init__(self, directory: Path, access: S3Access, layers: Sequence[SmallLayer]) -> None:
        self._directory = directory
        self._access = access
        self._layers = layers
        self._numbers = itertools.count()
        self._published: list[Tree] = []

    async def row(self, runs: int) -> Row:
        """Take the figures."""
        ways: dict[str, Callable[[], Awaitable[float]]] = {"by hand": self._by_hand, "publisher": self._by_publisher}
        target = Target(subject="publisher", over="by hand", limit=_LIMIT)
        row = await compare(f"{_LAYERS} queued small layers", ways, runs=runs, targets=(target,))
        first, *others = self._published
        for other in others:
            if found := differences(first, other):
                raise RuntimeError(f"by hand and by the publisher it is not the same: {found[:3]}")
        return row

    async def _by_hand(self) -> float:
        async with self._repository() as (standin, place), self._bucket() as access:
            await self._upload(access)
            urls = await self._urls(access)
            fetched = place / "fetched"
            fetched.mkdir()
            environment = standin.environment
            # The shell finds the program by the stand-in's PATH.
            transaction, publish = ((f"exec cvmfs_server {command} {_NAME}") for command in ("transaction", "publish"))
            script = _BY_HAND.format(area=shlex.quote(str(standin.area)), fetched=shlex.quote(str(fetched)))
            order = "".join(f"{layer.digest}\n" for layer in self._layers).encode()
            started = time.perf_counter()
            await asyncio.to_thread(self._fetch, urls, fetched)
            await run("sh", "-c", transaction, env=environment)
            await run("sh", "-c", script, input=order, timeout=_PATIENCE)
            await run("sh", "-c", publish, env=environment)
            return time.perf_counter() - started

    async def _upload(self, access: S3Access) -> None:
        async with ObjectStore(settings=access.settings) as store:
            for layer in self._layers:
                await store.upload(layer.archive, repository=_NAME)

    async def _urls(self, access: S3Access) -> list[str]:
        """Return from where anybody can fetch the layers."""
        async with s3_client(access) as client:
            named = [{"Bucket": access.bucket, "Key": f"sha256/{layer.digest}"} for layer in self._layers]
            return [await client.generate_presigned_url("get_object", Params=parameters) for parameters in named]

    def _fetch(self, urls: Sequence[str], destination: Path) -> None:
        """Fetch and verify the layers over one connection (blocking)."""
        connection = HTTPConnection(urlsplit(self._access.endpoint).netloc, timeout=_PATIENCE)
        try:
            for layer, url in zip(self._layers, map(urlsplit, urls), strict=True):
                connection.request("GET", f"{url.path}?{url.query}")
                response = connection.getresponse()
                content = response.read()
                if response.status != HTTPStatus.OK or hashlib.sha256(content).hexdigest() != layer.digest:
                    raise RuntimeError(f"the store does not give {layer.digest}: HTTP {response.status}")
                (destination / layer.digest).write_bytes(content)
                (destination / f"{layer.digest}.json").write_bytes(layer.sidecar)
        finally:
            connection.close()

    async def _by_publisher(self) -> float:
        async with (
            self._repository() as (standin, place),
            self._bucket() as access,
            self._publisher(standin, place, access) as api,
        ):
            await api.pause("until all layers are queued")
            await self._upload(access)
            sweep = await api.sweep()

            async def swept() -> bool:
                return (await api.status()).sweep.ended >= sweep

            await wait_until(swept, timeout=_PATIENCE, what="all layers are queued")
            sidecars = [standin.published / sidecar_path(layer.digest) for layer in self._layers]
            started = time.perf_counter()
            await api.resume()
            async with asyncio.timeout(_PATIENCE):
                while not all(map(os.path.exists, sidecars)):  # noqa: ASYNC110 - another process makes them
                    await asyncio.sleep(_POLL)
            return time.perf_counter() - started

    @asynccontextmanager
    async def _publisher(self, standin: StandIn, place: Path, access: S3Access) -> AsyncIterator[PublisherApi]:
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        daemon = Daemon(
            "publisher",
            [sys.executable, "-m", "services.publisher"],
            log=place / "publisher.log",
            env={
                **standin.environment,
                **access.environment,
                "PUBLISHER_REPOSITORY": _NAME,
                "PUBLISHER_REPOSITORY_KIND": "cvmfs_server",
                "PUBLISHER_CVMFS_MOUNT": str(standin.mount),
                "PUBLISHER_CVMFS_SPOOL": str(standin.spool),
                "PUBLISHER_CVMFS_CONFIGURATION": str(standin.configuration),
                "PUBLISHER_STATE": str(place / "state"),
                "PUBLISHER_SPOOL": str(place / "spool"),
                "PUBLISHER_EVENT_TOKEN": _TOKEN,
                "PUBLISHER_PORT": str(port),
            },
        )
        await daemon.start(lambda: answers(f"{url}/readyz"), timeout=_PATIENCE)
        try:
            async with PublisherApi(url=url, token=SecretStr(_TOKEN)) as api:
                yield api
        finally:
            await daemon.stop()

    @asynccontextmanager
    async def _bucket(self) -> AsyncIterator[S3Access]:
        """Make a bucket of its own: what is in it when a publisher starts is published before it can be paused."""
        access = replace(self._access, bucket=f"queued-{next(self._numbers)}")
        async with s3_client(access) as client:
            if not await create_bucket(client, access.bucket):
                raise RuntimeError(f"the store does not make the bucket {access.bucket}")
            yield access
            await remove_bucket(client, access.bucket)

    @asynccontextmanager
    async def _repository(self) -> AsyncIterator[tuple[StandIn, Path]]:
        """Make a repository of its own; what it holds in the end is kept, to be compared."""
        place = self._directory / f"run-{next(self._numbers)}"
        standin = StandIn(place / "stratum0", _NAME)
        await asyncio.to_thread(standin.create)
        try:
            yield standin, place
            self._published.append(await asyncio.to_thread(_published, standin))
        finally:
            await asyncio.to_thread(standin.lose_mounts)


def _published(standin: StandIn) -> Tree:
    """Read a repository, but for what says by whom and when it was made."""
    return {
        path: entry if b"/layerfs/" in path else replace(entry, mtime=None)
        for path, entry in read_directory(standin.published).items()
        if path != _OWN
    }
