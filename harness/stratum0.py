"""The stratum-0 side on one machine: object store, publisher, and a repository in a directory or of CVMFS's format."""

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp

from harness.http import answers
from harness.ports import free_ports
from harness.processes import Service
from harness.s3 import S3Access, create_bucket, s3_client
from harness.seaweedfs import SeaweedFS
from services.common.digest import Digest
from services.common.layout import LAYERS_DIRECTORY, layer_home, sidecar_path
from services.common.repository_name import RepositoryName
from services.publisher.settings import RepositoryKind
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.storage.bucket import BucketStorage
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.keyring import KeyFiles

__all__ = ["Stratum0"]

_POLL: Final = 0.002
"""Seconds between two looks at the repository; it bounds the error of measured times."""
_POLL_BY_READER: Final = 0.02
"""The same where each look verifies signatures, which takes time from what is measured."""


class Stratum0:
    """SeaweedFS, which announces uploads to a publisher, which writes a repository.

    Parameters
    ----------
    directory
        Directory on a real file system that gets everything they keep and log.
    repository
        Name of the repository.
    kind
        Its kind. A `directory` is what nodes mount as it is; of a `native` one a client makes what they mount.
    bucket
        Bucket of a native repository, besides that of the layers; None if it is in a directory.
    publisher_settings
        Further settings of the publisher.
    """

    def __init__(
        self,
        *,
        directory: Path,
        repository: RepositoryName,
        kind: RepositoryKind = RepositoryKind.DIRECTORY,
        bucket: str | None = None,
        publisher_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.directory = directory
        self.repository = repository
        self.cvmfs_root = directory / "cvmfs"
        """What a node has as `/cvmfs`."""
        self.tree = self.cvmfs_root / repository
        """Root of the repository, as a node sees it."""
        self.written = self.tree if kind is RepositoryKind.DIRECTORY else directory / "repository"
        """What the publisher writes, unless that is in a bucket."""
        self._bucket = bucket
        self.keys = KeyFiles(directory / "keys", repository)
        """Of a native repository."""
        (self._port,) = free_ports(1)
        self.token = secrets.token_urlsafe(24)
        """What the publisher wants to see of whoever changes something."""
        self.store = SeaweedFS(directory / "seaweedfs")
        self.store.announce_to(f"{self.url}/v1/events", self.token)
        self.publisher = Service(
            "publisher",
            "services.publisher",
            log=directory / "publisher.log",
            env={
                **self.store.environment,
                "PUBLISHER_REPOSITORY": repository,
                "PUBLISHER_REPOSITORY_KIND": kind,
                **self._place,
                "PUBLISHER_KEYS": str(directory / "keys"),
                "PUBLISHER_STATE": str(directory / "publisher"),
                "PUBLISHER_SPOOL": str(directory / "spool"),
                "PUBLISHER_PORT": str(self._port),
                "PUBLISHER_EVENT_TOKEN": self.token,
                # SeaweedFS sends a notification once, and a busy machine loses some.
                "PUBLISHER_SWEEP_INTERVAL": "20",
                **(publisher_settings or {}),
            },
        )

    @property
    def _access(self) -> S3Access:
        """The bucket of the repository."""
        return replace(self.store.access, bucket=str(self._bucket))

    @property
    def _place(self) -> Mapping[str, str]:
        """Settings that say where the publisher writes."""
        if self._bucket is None:
            return {"PUBLISHER_DIRECTORY": str(self.written)}
        return self._access.repository_environment

    @contextmanager
    def open_storage(self, state: Path) -> Iterator[Storage]:
        """Open the storage of a native repository (blocking).

        Parameters
        ----------
        state
            A directory of whoever opens it; the publisher's for whoever writes.
        """
        if self._bucket is None:
            yield DirectoryStorage(self.written)
            return
        with BucketStorage.connect(self._access.repository_settings(), state) as storage:
            yield storage

    @property
    def url(self) -> str:
        """URL of the publisher."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def access(self) -> S3Access:
        """The bucket of layers, for a user who may do everything."""
        return self.store.access

    @property
    def node_settings(self) -> dict[str, str]:
        """Settings of a node that uses this repository."""
        return self._settings("GRAPHDRIVER")

    @property
    def containerd_node_settings(self) -> dict[str, str]:
        """Settings of a node with containerd that uses this repository."""
        return self._settings("SNAPSHOTTER")

    def _settings(self, front_end: str) -> dict[str, str]:
        return {
            **self.store.environment,
            f"{front_end}_REPOSITORIES": self.repository,
            f"{front_end}_UPLOAD_REPOSITORY": self.repository,
        }

    async def start(self) -> None:
        """Start the object store and the publisher.

        Raises
        ------
        DaemonError
            One of them ended, or was not ready in time.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        await self.store.start()
        if self._bucket is not None:
            async with s3_client(self._access) as client:
                await create_bucket(client, self._bucket)
        if self.kind is RepositoryKind.NATIVE:
            await asyncio.to_thread(self._create)
        await self.start_publisher()

    def _create(self) -> None:
        with self.open_storage(self.directory / "publisher" / "native" / self.repository) as storage:
            create_repository(name=self.repository, storage=storage, keys=self.keys, chosen=RepositoryFormat(), meta={})

    async def start_publisher(self) -> None:
        """Start the publisher and wait until it is ready."""
        await self.publisher.start(lambda: answers(f"{self.url}/readyz"))

    async def close(self) -> None:
        """End both."""
        await self.publisher.stop()
        await self.store.kill()

    async def layer(self, digest: Digest) -> dict[str, Any]:
        """Return what the publisher says about a layer."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/v1/layers/{digest}") as response:
            document: dict[str, Any] = json.loads(await response.read())
            return document

    async def visible(self, digest: Digest, *, timeout: float = 300) -> None:  # noqa: ASYNC109 - a time-out is the point
        """Wait until the repository shows a layer, which it does whole or not at all.

        Raises
        ------
        TimeoutError
            It does not within `timeout` seconds; the text ends with what the publisher says.
        """
        sidecar = self.tree / sidecar_path(digest)
        try:
            async with asyncio.timeout(timeout):
                while not sidecar.exists():  # noqa: ASYNC110 - another process makes the file
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            state = await self.layer(digest)
            raise TimeoutError(f"layer {digest} does not appear in {self.tree} within {timeout:g} s: {state}") from None

    async def next_layer(self) -> Digest:
        """Wait for the next layer that the repository shows, and return its digest."""
        with self._looking() as look:
            before = await asyncio.to_thread(look)
            while True:
                if new := await asyncio.to_thread(look) - before:
                    return new.pop()
                await asyncio.sleep(_POLL if self.kind is RepositoryKind.DIRECTORY else _POLL_BY_READER)

    @contextmanager
    def _looking(self) -> Iterator[Callable[[], set[Digest]]]:
        """Return what finds the layers that the repository shows (blocking)."""
        if self.kind is RepositoryKind.DIRECTORY:
            yield self._layers_in_tree
            return
        keys = [self.keys.public.read_bytes()]
        with (
            self.open_storage(self.directory / "onlooker") as storage,
            RepositoryReader(storage, name=self.repository, master_keys=keys) as reader,
        ):
            yield lambda: _layers_in(reader)

    def _layers_in_tree(self) -> set[Digest]:
        digests = (Digest(home.name) for home in (self.tree / LAYERS_DIRECTORY).glob("??/*"))
        return {digest for digest in digests if (self.tree / sidecar_path(digest)).exists()}

    def home(self, digest: Digest) -> Path:
        """Directory of a published layer."""
        return self.tree / layer_home(digest)


def _layers_in(reader: RepositoryReader) -> set[Digest]:
    """Return the layers of the newest revision; clients see one as a whole or not at all."""
    revision = reader.newest(reader.head())
    top = b"/" + LAYERS_DIRECTORY.encode()
    if revision.stat(top) is None:
        return set()
    shelves = [entry for entry in revision.list(top) if entry.is_directory]
    return {Digest(home.name.decode()) for shelf in shelves for home in revision.list(shelf.path) if home.is_directory}
