"""A publisher that reads images from a local registry, and sees when its native repository shows them."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from harness.bench.mixed_images import MixedLayer
from harness.stratum0 import Stratum0
from services.common.image_name import METADATA_DIRECTORY, ImageName
from services.common.layout import sidecar_path
from services.common.publisher_api import ImageRequest, PublisherApi
from services.common.repository_name import RepositoryName
from services.publisher.settings import RepositoryKind
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.storage.directory import DirectoryStorage

__all__ = ["NAME", "ImageSite", "open_image_site"]

NAME: Final = RepositoryName("bench.example.org")
"""Of the repository."""
_HEAD: Final = ".cvmfspublished"
"""What every revision replaces."""
_POLL: Final = 0.002
"""Seconds between two looks at that; it bounds the error of measured times."""
_PATIENCE: Final = 900
"""Seconds that anything may take."""


class ImageSite:
    """The publisher and its repository.

    Parameters
    ----------
    stratum0
        Both.
    api
        Asks the publisher.
    storage, reader
        Of the repository.
    """

    def __init__(
        self, *, stratum0: Stratum0, api: PublisherApi, storage: DirectoryStorage, reader: RepositoryReader
    ) -> None:
        self.stratum0 = stratum0
        self._api = api
        self._storage = storage
        self._reader = reader

    async def publish(self, images: Collection[str], layers: Collection[MixedLayer]) -> None:
        """Ask for images by their names, and wait until clients would see them with their layers.

        Raises
        ------
        PublisherApiError
            The publisher does not take the request.
        TimeoutError
            They are not there in time; the text says what the publisher says.
        """
        async with asyncio.TaskGroup() as group:
            for image in images:
                group.create_task(self._api.images.ask(ImageRequest(name=ImageName(image))))
        await self.visible(images, layers)

    async def visible(self, images: Collection[str], layers: Collection[MixedLayer]) -> None:
        """Wait until clients would see images that somebody has asked for, with their layers.

        Raises
        ------
        TimeoutError
            They are not there in time; the text says what the publisher says.
        """
        wanted = {sidecar_path(layer.digest) for layer in layers}
        wanted |= {f"{METADATA_DIRECTORY}/{ImageName(image).path}/manifest.json" for image in images}
        try:
            async with asyncio.timeout(_PATIENCE):
                seen = None
                while wanted:
                    if (version := self._storage.version(_HEAD)) == seen:
                        await asyncio.sleep(_POLL)
                        continue
                    seen = version
                    wanted -= await asyncio.to_thread(self._shown, wanted)
        except TimeoutError:
            said = [await self._api.images.image(ImageName(image)) for image in images]
            raise TimeoutError(f"images do not appear within {_PATIENCE} s: {said}") from None

    def _shown(self, paths: Collection[str]) -> set[str]:
        revision = self._reader.newest(self._reader.head())
        return {path for path in paths if revision.stat(b"/" + path.encode()) is not None}


@asynccontextmanager
async def open_image_site(directory: Path, registry: str) -> AsyncIterator[ImageSite]:
    """Start a publisher with an empty repository; what it has written is kept when it ends.

    Parameters
    ----------
    directory
        What does not exist yet, and gets everything.
    registry
        The registry of plain HTTP that images are in.
    """
    stratum0 = Stratum0(
        directory=directory,
        repository=NAME,
        kind=RepositoryKind.NATIVE,
        publisher_settings={"REGISTRY_PLAIN_HTTP": registry, "PUBLISHER_COLLECT_INTERVAL": "0"},
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stratum0.close)
        await stratum0.start()
        api = await stack.enter_async_context(PublisherApi(url=stratum0.url, token=SecretStr(stratum0.token)))
        storage = DirectoryStorage(stratum0.written)
        keys = [await asyncio.to_thread(stratum0.keys.public.read_bytes)]
        reader = stack.enter_context(RepositoryReader(storage, name=NAME, master_keys=keys))
        yield ImageSite(stratum0=stratum0, api=api, storage=storage, reader=reader)
