"""The object store that a node's commits go to."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from services.common.archive.model import LayerArchive
from services.common.object_store.settings import ObjectStoreSettings
from services.common.repository_name import RepositoryName
from services.common.streams import run_in_thread

if TYPE_CHECKING:
    from services.common.object_store.store import ObjectStore

__all__ = ["NodeStore"]


class NodeStore:
    """The bucket of layers, for uploads; a context manager that holds the connections.

    Its client is loaded for the first upload and stays: it takes some 40 MB, and most nodes only run images.

    Parameters
    ----------
    settings
        Where the bucket is and how long to wait for it.
    """

    def __init__(self, *, settings: ObjectStoreSettings) -> None:
        self._settings = settings
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._opened: ObjectStore | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self._stack.aclose()

    def memory(self, archive: LayerArchive) -> int:
        """Return how many bytes of memory the upload of an archive holds at most."""
        return self._settings.sending_memory(archive.size)

    async def upload(self, archive: LayerArchive, *, repository: RepositoryName) -> bool:
        """Store a layer archive, as `ObjectStore.upload` does."""
        async with self._opening:
            if self._opened is None:
                store = (await run_in_thread(_load))(settings=self._settings)
                self._opened = await self._stack.enter_async_context(store)
        return await self._opened.upload(archive, repository=repository)


def _load() -> "type[ObjectStore]":
    from services.common.object_store.store import ObjectStore  # noqa: PLC0415

    return ObjectStore
