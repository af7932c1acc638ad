"""A publisher in this process that has no bucket, and images in a registry to feed it with."""

import asyncio
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer
from pydantic import HttpUrl, SecretStr

from harness.processes import wait_until
from services.common.archive.limits import ArchiveLimits
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import sidecar_path
from services.common.object_store.settings import ObjectStoreSettings
from services.common.publisher_api import ImageAnswer, ImageRequest, PublisherApi, PublisherRefusedError
from services.publisher.factory import build_publisher
from services.publisher.settings import PublisherSettings
from services.registry.options import RegistryOptions
from tests.support.oci import write_image
from tests.support.publisher import REPOSITORY, TOKEN
from tests.support.registries import RegistryServer, impatient
from tests.support.tars import archive, member

__all__ = ["ImagePublisher", "layer_of", "push_image", "sha256"]

_UNREACHABLE = ObjectStoreSettings(
    endpoint=HttpUrl("http://127.0.0.1:9"),
    access_key=SecretStr("key"),
    secret_key=SecretStr("secret"),
    retry_seconds=0.01,
)


def layer_of(text: str, *, size: int = 0) -> bytes:
    """Make an archive of one file that begins with a text, of at least so many bytes."""
    return archive(member(b"file", text.encode().ljust(size, b".")))


def sha256(content: bytes) -> Digest:
    """Return a digest."""
    return Digest(hashlib.sha256(content).hexdigest())


def _patient() -> RegistryOptions:
    """Options that a busy machine is quick enough for."""
    return impatient(connect_timeout=30.0, read_timeout=30.0)


async def push_image(registry: RegistryServer, name: str, layers: Sequence[bytes]) -> ImageName:
    """Push an image of uncompressed layers, base first; return what it is called in a repository."""
    directory = Path(tempfile.mkdtemp(dir=registry.directory))
    try:
        await asyncio.to_thread(write_image, directory / "image", layers, tag="1")
        await registry.push(f"oci:{directory / 'image'}:1", name, "--preserve-digests")
    finally:
        await asyncio.to_thread(shutil.rmtree, directory)
    return ImageName(f"{registry.address}/{name}")


class ImagePublisher:
    """A publisher that runs, and its clients."""

    def __init__(self, directory: Path, api: PublisherApi, url: str) -> None:
        self.directory = directory
        self.root = directory / "repository"
        self.spool = directory / "spool"
        self.api = api.images
        self.url = url

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        directory: Path,
        *,
        options: RegistryOptions | None = None,
        token: str = TOKEN,
        store: ObjectStoreSettings = _UNREACHABLE,
        **settings: Any,  # noqa: ANN401 - the settings
    ) -> "AsyncIterator[ImagePublisher]":
        """Run one to a directory until the end of the context.

        Parameters
        ----------
        options
            How registries are spoken to.
        token
            What its client shows.
        store
            The bucket, where something is done with it.
        settings
            Further settings.
        """
        chosen = PublisherSettings(
            **{
                "repository": REPOSITORY,
                "directory": directory / "repository",
                "state": directory / "state",
                "spool": directory / "spool",
                "event_token": SecretStr(TOKEN),
                "retry_first": 0.05,
                "retry_last": 0.2,
                "keep_replaced": 60,
                **settings,
            }
        )
        async with (
            build_publisher(chosen, store, ArchiveLimits(), options or _patient()) as publisher,
            TestServer(publisher.app) as server,
            PublisherApi(url=str(server.make_url("/")), token=SecretStr(token)) as api,
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(run()) for run in publisher.services]
            try:
                yield cls(directory, api, str(server.make_url("")))
            finally:
                for task in tasks:
                    task.cancel()

    async def ask(self, name: ImageName, **rest: Any) -> ImageAnswer:  # noqa: ANN401 - the fields of a request
        """Ask for an image."""
        return await self.api.ask(ImageRequest(name=name, **rest))

    async def becomes(self, name: ImageName, *states: str, timeout: float = 300) -> ImageAnswer:  # noqa: ASYNC109
        """Wait until an image is in one of the states; return what the publisher says of it then."""
        seen: list[ImageAnswer | None] = [None]

        async def there() -> bool:
            seen[0] = await self.api.image(name)
            return seen[0] is not None and seen[0].state in states

        try:
            await wait_until(there, timeout=timeout, what=f"{name} becomes {states}")
        except TimeoutError as error:
            raise AssertionError(f"{error}; it is {seen[0]}") from None
        assert seen[0] is not None
        return seen[0]

    async def published(self, name: ImageName, **rest: Any) -> ImageAnswer:  # noqa: ANN401 - as `ask`
        """Ask for an image, and wait until it is published."""
        await self.ask(name, **rest)
        return await self.becomes(name, "published")

    async def refused(self, name: ImageName) -> ImageAnswer:
        """Wait until an image has failed and is not tried again by itself."""

        async def there() -> bool:
            image = await self.api.image(name)
            return image is not None and image.is_refused

        await wait_until(there, what=f"{name} is refused")
        return await self.becomes(name, "failed")

    async def replaced(self, name: ImageName, former: ImageAnswer) -> ImageAnswer:
        """Wait until another version of an image is published than one that was."""

        async def there() -> bool:
            image = await self.api.image(name)
            return image is not None and image.published_digest != former.published_digest

        await wait_until(there, what=f"{name} is replaced")
        return await self.becomes(name, "published")

    async def collected(self) -> Sequence[Digest]:
        """Collect, as soon as what an earlier publisher has left is cleaned up; return which layers are gone."""
        gone: list[Digest] = []

        async def done() -> bool:
            try:
                gone.extend(Digest(layer.digest) for layer in (await self.api.collect(dry_run=False)).layers)
            except PublisherRefusedError:
                return False
            return True

        await wait_until(done, what="layers are collected")
        return gone

    async def disagreements(self) -> list[dict[str, Any]]:
        """Compare repository, journal and bucket; return what is found."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession(headers=headers, raise_for_status=True) as session,
            session.post(f"{self.url}/v1/check") as response,
        ):
            lines = [json.loads(line) async for line in response.content]
        assert "summary" in lines[-1], lines
        return [line for line in lines if "digest" in line]

    async def metric(self, name: str, **labels: str) -> float:
        """Read a metric: the sum over all that have these labels."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            text = await response.text()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if re.match(rf"{name}[ {{]", line)]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(part in line for part in wanted))

    def documents(self, name: ImageName) -> dict[str, bytes]:
        """Return the documents of an image that readers see, by their names."""
        directory = self.root / ".metadata" / name.path
        return {path.name: path.read_bytes() for path in directory.iterdir()} if directory.exists() else {}

    def has(self, *layers: bytes) -> list[bool]:
        """Say which layers, given by their archives, readers see whole."""
        return [(self.root / sidecar_path(sha256(layer))).exists() for layer in layers]
