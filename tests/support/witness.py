"""Whoever reads a native repository all the time, as nodes do, and looks into its whole history in the end."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from harness.processes import wait_until
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.layout import layer_home, layer_tree, sidecar_path
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError, StorageError
from services.repository.native.reader.cache import CatalogCache
from services.repository.native.reader.catalog import CatalogReference
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.revision import Revision
from services.repository.native.records import ContentHash

__all__ = ["Contents", "History", "Witness", "read_layer"]

Contents = Mapping[str, bytes]
"""The files of a layer, by their paths in it."""
_PAUSE: Final = 0.03
"""Seconds between two looks at the head."""


class Witness:
    """Sees every layer appear, and whether it is whole then.

    Parameters
    ----------
    open_reader
        Opens a reader of the repository.
    wanted
        Returns the layers that are to appear at some time, and what they are to hold.
    """

    def __init__(
        self,
        open_reader: Callable[[], AbstractContextManager[RepositoryReader]],
        wanted: Callable[[], Mapping[Digest, Contents]],
    ) -> None:
        self.half: set[str] = set()
        """What was seen that must not be: layers in part, without their objects, or gone again."""
        self.seen: dict[Digest, int] = {}
        """The layers, and the revision that each was seen in first."""
        self._open_reader = open_reader
        self._wanted = wanted
        self._moments: list[tuple[float, int]] = []
        """When which revision was seen."""
        self._looked = 0.0
        """When the last look began."""
        self._ended = threading.Event()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look on, until the end of the context."""
        looking = asyncio.create_task(asyncio.to_thread(self._watch))
        try:
            yield
        finally:
            self._ended.set()
            await looking

    async def news(self, *, what: str) -> float:
        """Wait until a revision is seen that nobody sees yet; return when that was, by the monotonic clock."""
        now = time.monotonic()

        async def looked() -> bool:
            return self._looked > now

        await wait_until(looked, what=f"the repository is read, {what}")
        known = self._moments[-1][1] if self._moments else 0

        async def more() -> bool:
            return bool(self._moments) and self._moments[-1][1] > known

        await wait_until(more, what=f"something is published, {what}")
        return next(moment for moment, revision in self._moments if revision > known)

    async def sees(self, layers: set[Digest]) -> None:
        """Wait until layers are seen."""

        async def there() -> bool:
            return layers <= self.seen.keys()

        await wait_until(there, what=f"{len(layers)} layers are visible")

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                with self._open_reader() as reader:
                    while not self._ended.wait(_PAUSE):
                        began = time.monotonic()
                        self._look(reader)
                        self._looked = began
            except (ObjectMissingError, BrokenRepositoryError) as error:
                self.half.add(str(error))
            except StorageError:
                pass  # the store is down, and nodes wait

    def _look(self, reader: RepositoryReader) -> None:
        head = reader.head()
        number = head.manifest.revision
        last = self._moments[-1][1] if self._moments else 0
        if number == last:
            return
        if number < last:
            self.half.add(f"revision {number} after {last}")
        revision = reader.newest(head)
        shown = _layers(revision)
        self.half |= {f"{layer} has gone" for layer in self.seen.keys() - shown}
        for layer in shown - self.seen.keys():
            self._compare(revision, layer)
            self.seen[layer] = number
        for layer in self._wanted().keys() - shown:
            if revision.stat(f"/{layer_home(layer)}".encode()) is not None:
                self.half.add(f"{layer} has a home and no name")
        self._moments.append((time.monotonic(), number))

    def _compare(self, revision: Revision, layer: Digest) -> None:
        found = read_layer(revision, layer)
        if found != self._wanted().get(layer):
            self.half.add(f"{layer} holds {sorted(found)}")


@dataclass(slots=True)
class History:
    """What all revisions of a repository say together."""

    revisions: int = 0
    half: set[str] = field(default_factory=set)
    """Layers that a revision has in part, or no more."""
    twice: set[str] = field(default_factory=set)
    """Layers that were published anew, and revisions that brought nothing."""

    @classmethod
    def read(cls, reader: RepositoryReader, wanted: Mapping[Digest, Contents]) -> "History":
        """Look into every revision, from the first one on."""
        self = cls()
        known: dict[Digest, CatalogReference] = {}
        with CatalogCache(reader.source) as catalogs:
            for revision in reversed(list(_revisions(reader, catalogs))):
                self._add(revision, known, wanted)
                self.revisions += 1
        return self

    def _add(
        self, revision: Revision, known: dict[Digest, CatalogReference], wanted: Mapping[Digest, Contents]
    ) -> None:
        shown = _layers(revision)
        self.half |= {f"{layer} has gone" for layer in known.keys() - shown}
        new = shown - known.keys()
        if self.revisions and not new:
            self.twice.add(str(revision.root.hash))
        self.half |= {layer for layer in new if read_layer(revision, layer) != wanted.get(layer)}
        for layer in shown:
            catalog = revision.catalog_of(f"/{layer_home(layer)}".encode())
            if known.setdefault(layer, catalog) != catalog:
                self.twice.add(layer)


def _revisions(reader: RepositoryReader, catalogs: CatalogCache) -> Iterator[Revision]:
    """Iterate over all revisions, the newest one first."""
    head = reader.head().manifest
    root = CatalogReference(b"", head.root, head.root_size)
    while not root.hash.is_null:
        revision = Revision(reader.source, root, catalogs=catalogs)
        yield revision
        root = CatalogReference(b"", ContentHash.parse(revision.properties(b"")["previous_revision"]), None)


def _layers(revision: Revision) -> set[Digest]:
    """Return the layers that have a name at the top of a repository."""
    shown = set()
    for entry in revision.list(b""):
        try:
            shown.add(Digest(entry.path[1:].decode()))
        except InvalidValueError:
            continue  # the index of images, and what else there is
    return shown


def read_layer(revision: Revision, layer: Digest) -> Contents:
    """Read the files of a layer, and its sidecar, which must be its own."""
    top = f"/{layer_tree(layer)}".encode()
    sidecar = revision.stat(f"/{sidecar_path(layer)}".encode())
    if sidecar is None or json.loads(b"".join(revision.content(sidecar)))["digest"] != layer:
        return {}
    files = [entry for entry in revision.walk(top) if entry.is_file]
    return {file.path[len(top) + 1 :].decode(): b"".join(revision.content(file)) for file in files}
