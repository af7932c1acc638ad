"""A publisher that asks itself for an image, in a process that is killed on the way."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from services.common.image_name import ImageName
from services.publisher.journal.images import ImageJournal
from services.publisher.journal.versions import VersionJournal
from services.publisher.pipeline.images.blobs import BlobFetcher
from services.publisher.pipeline.images.resolver import Resolver
from services.publisher.pipeline.outcomes import Outcomes
from services.repository.directory.transaction import DirectoryTransaction
from tests.support.image_site import ImagePublisher

__all__ = ["PLACES", "publish_until"]

_Method = Callable[..., Awaitable[Any]]


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


PLACES: Final[dict[str, tuple[Callable[[type, str], None], type, str]]] = {
    "asked": (_after, ImageJournal, "ask"),
    "resolving": (_before, Resolver, "resolve"),
    "resolved": (_after, VersionJournal, "resolved"),
    "fetched": (_after, BlobFetcher, "bring"),
    "ready": (_after, ImageJournal, "ready"),
    "publishing": (_after, ImageJournal, "enter"),
    "before the switch": (_before, DirectoryTransaction, "publish"),
    "after the switch": (_before, Outcomes, "published"),
    "recorded": (_after, VersionJournal, "published"),
}
"""Where a publisher can be killed."""


def publish_until(place: str, directory: Path, name: str) -> None:
    """Run a publisher, ask it for an image, and be killed; a target for a process of its own.

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
