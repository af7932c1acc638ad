"""Layers that come steadily, as nodes commit them: into the object store, which then tells a publisher."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.object_store.errors import ObjectStoreError
from services.common.object_store.store import ObjectStore
from tests.support.native import tar_archive
from tests.support.publisher import REPOSITORY
from tests.support.publisher_site import PublisherSite
from tests.support.tars import archive, member
from tests.support.witness import Contents

__all__ = ["LayerFlow"]

_FILES: Final = 4
_SIZE: Final = 20_000
"""Of a file, in bytes."""
_ON_THEIR_WAY: Final = 24
"""Most layers that are neither stored nor announced yet."""


class LayerFlow:
    """The layers, which nobody may lose once they are stored.

    Parameters
    ----------
    site
        Where they go.
    directory
        Where archives are.
    per_second
        How many are made.
    draw
        Draws which publisher is told first.
    """

    def __init__(self, site: PublisherSite, directory: Path, *, per_second: float, draw: random.Random) -> None:
        self.contents = dict[Digest, Contents]()
        """What each layer holds."""
        self.stored = set[Digest]()
        """Those that the object store has taken."""
        self.answered = set[Digest]()
        """Those that a publisher has said it knows of."""
        self._site = site
        self._directory = directory
        self._per_second = per_second
        self._draw = draw

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Let them come; at the end of the context, wait until all are stored and announced."""
        async with ObjectStore(settings=self._site.access.settings) as store, asyncio.TaskGroup() as group:
            making = group.create_task(self._make(store, group))
            yield
            making.cancel()

    async def _make(self, store: ObjectStore, group: asyncio.TaskGroup) -> None:
        room = asyncio.Semaphore(_ON_THEIR_WAY)
        while True:
            await room.acquire()
            sent = group.create_task(self._send(store, self._new()))
            sent.add_done_callback(lambda _: room.release())
            await asyncio.sleep(1 / self._per_second)

    def _new(self) -> LayerArchive:
        number = len(self.contents)
        files = {f"file-{file}": b"%d %d " % (number, file) * (_SIZE // 8) for file in range(_FILES)}
        made = tar_archive(self._directory, archive(*(member(name.encode(), files[name]) for name in files)))
        self.contents[made.digest] = files
        return made

    async def _send(self, store: ObjectStore, layer: LayerArchive) -> None:
        while True:
            try:
                await store.upload(layer, repository=REPOSITORY)
                break
            except ObjectStoreError:
                continue  # the commit has failed, and is repeated
        self.stored.add(layer.digest)
        await self._site.announce([layer], first=self._draw.randrange(len(self._site.publishers)))
        self.answered.add(layer.digest)
