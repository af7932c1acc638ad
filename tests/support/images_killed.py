"""A publisher that works on images, in a process that is killed on the way, and what it publishes to."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from services.common.image_name import ImageName
from services.publisher.journal.images import ImageJournal
from services.publisher.journal.unnamed import UnnamedJournal
from services.publisher.journal.versions import VersionJournal
from services.publisher.pipeline.batches import BatchPublisher
from services.publisher.pipeline.images.blobs import BlobFetcher
from services.publisher.pipeline.images.resolver import Resolver
from services.publisher.pipeline.outcomes import Outcomes
from services.publisher.pipeline.ready import ReadyQueue
from services.publisher.settings import RepositoryKind
from services.repository.cvmfs_server.repository import CvmfsServerRepository
from services.repository.directory.repository import DirectoryRepository
from services.repository.interface import Repository, Transaction
from services.repository.native.repository import NativeRepository
from tests.support.image_site import ImagePublisher

__all__ = [
    "BATCH_PLACES",
    "COLLECTION_PLACES",
    "PLACES",
    "ChangeOfImages",
    "KilledSite",
    "change_until",
    "collect_until",
    "publish_until",
]

_Method = Callable[..., Awaitable[Any]]
_When = Callable[[type, str], None]
_Place = tuple[_When, type, str]


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(owner: type, method: str) -> None:
    """Be killed where a method begins."""

    async def killed(*_arguments: object, **_more: object) -> None:
        _kill()

    setattr(owner, method, killed)


def _after(owner: type, method: str) -> None:
    """Be killed where a method has ended."""
    original: _Method = getattr(owner, method)

    async def killed(*arguments: object, **more: object) -> None:
        await original(*arguments, **more)
        _kill()

    setattr(owner, method, killed)


PLACES: Final[dict[str, _Place]] = {
    "asked": (_after, ImageJournal, "ask"),
    "resolving": (_before, Resolver, "resolve"),
    "resolved": (_after, VersionJournal, "resolved"),
    "fetched": (_after, BlobFetcher, "bring"),
    "ready": (_after, ImageJournal, "ready"),
    "publishing": (_after, ImageJournal, "enter"),
}
"""Where a publisher can be killed before an image is in a transaction; the rest are in `BATCH_PLACES`."""
BATCH_PLACES: Final[dict[str, tuple[_When, type | None, str]]] = {
    "an image is added": (_after, None, "put_image"),
    "before the switch": (_before, None, "publish"),
    "after the switch": (_before, Outcomes, "published"),
    "recorded": (_after, VersionJournal, "published"),
}
"""Where a publisher can be killed while it publishes and removes images at once; None is the kind's transaction."""
COLLECTION_PLACES: Final[dict[str, tuple[_When, type | None, str]]] = {
    "claimed": (_after, UnnamedJournal, "claim"),
    "a layer is removed": (_after, None, "remove_layer"),
    "after the switch": (_before, UnnamedJournal, "collected"),
    "recorded": (_after, UnnamedJournal, "collected"),
}
"""Where it can be killed while it collects."""
_REPOSITORIES: Final[dict[RepositoryKind, type]] = {
    RepositoryKind.DIRECTORY: DirectoryRepository,
    RepositoryKind.CVMFS_SERVER: CvmfsServerRepository,
    RepositoryKind.NATIVE: NativeRepository,
}


@dataclass(frozen=True, kw_only=True)
class KilledSite:
    """What a publisher works with that is killed and started again."""

    directory: Path
    kind: RepositoryKind
    settings: Mapping[str, Any]
    """The publisher's."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def arm(self, kill: _When, owner: type | None, method: str) -> None:
        """Have this process killed at a place."""
        if owner is not None:
            kill(owner, method)
            return
        kind = _REPOSITORIES[self.kind]
        original = kind.transaction  # type: ignore[attr-defined] # all of them have it

        @asynccontextmanager
        async def transaction(repository: Repository, token: str) -> AsyncIterator[Transaction]:
            async with original(repository, token) as opened:
                kill(type(opened), method)
                yield opened

        kind.transaction = transaction  # type: ignore[attr-defined]


def publish_until(place: str, directory: Path, name: str) -> None:
    """Run a publisher to a directory, ask it for an image, and be killed; a target for a process of its own.

    Parameters
    ----------
    place
        Where, of `PLACES`.
    directory
        The publisher's.
    name
        The image's.
    """
    kill, owner, method = PLACES[place]
    kill(owner, method)

    async def publish() -> None:
        async with ImagePublisher.running(directory) as publisher:
            await publisher.published(ImageName(name))

    asyncio.run(publish())


@dataclass(frozen=True, kw_only=True)
class ChangeOfImages:
    """What is asked of a publisher at once."""

    wanted: Mapping[str, str]
    """Names of images to be published, and where they are pulled from."""
    gone: str | None
    """Name of one that is removed."""

    async def ask(self, publisher: ImagePublisher) -> None:
        """Ask for it."""
        for name, reference in self.wanted.items():
            await publisher.ask(ImageName(name), reference=reference)
        if self.gone is not None:
            await publisher.api.remove(ImageName(self.gone), keep_seconds=0)

    @property
    def units(self) -> int:
        """How many parts a batch of it has."""
        return len(self.wanted) + (self.gone is not None)


def change_until(site: KilledSite, place: str | None, change: ChangeOfImages) -> None:
    """Change images in one transaction, and be killed meanwhile; as `publish_until`.

    Parameters
    ----------
    place
        Where, of `BATCH_PLACES`; None where somebody else kills this process.
    """
    os.environ.update(site.environment)
    if place is not None:
        site.arm(*BATCH_PLACES[place])
    put, publish = ReadyQueue.put, BatchPublisher.publish
    ready = asyncio.Semaphore(0)

    def counted(queue: ReadyQueue, unit: Any) -> None:  # noqa: ANN401 - as the method
        put(queue, unit)
        ready.release()

    async def together(batches: BatchPublisher, *arguments: Any) -> None:  # noqa: ANN401 - as the method
        for _ in range(change.units):
            await ready.acquire()
        await publish(batches, *arguments)

    ReadyQueue.put, BatchPublisher.publish = counted, together  # type: ignore[assignment, method-assign]

    async def run() -> None:
        async with ImagePublisher.running(site.directory, **site.settings) as publisher:
            await change.ask(publisher)
            for name in change.wanted:
                await publisher.becomes(ImageName(name), "published")
            raise AssertionError("nobody has killed this process")

    asyncio.run(run())


def collect_until(site: KilledSite, place: str) -> None:
    """Collect, and be killed at a place of `COLLECTION_PLACES`; as `publish_until`."""
    os.environ.update(site.environment)
    site.arm(*COLLECTION_PLACES[place])

    async def collect() -> None:
        async with ImagePublisher.running(site.directory, **site.settings) as publisher:
            await publisher.collected()

    asyncio.run(collect())
