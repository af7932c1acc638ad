"""Works on a repository in a process that is killed on the way."""

import asyncio
from collections.abc import Sequence
from multiprocessing.connection import Connection

from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.repository.images import ImageDocuments
from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from tests.support.images import change
from tests.support.killed import Steps
from tests.support.native import NATIVE_NAME, NativeSite, publish

__all__ = ["change_until", "collect_until", "create_until", "publish_until"]


def publish_until(site: NativeSite, archives: Sequence[LayerArchive], last: int | None, answer: Connection) -> None:
    """Publish layers as one batch; a target for a process of its own.

    Parameters
    ----------
    site
        The repository.
    archives
        The layers.
    last
        The step at which the process is killed; None goes to the end.
    answer
        Gets the number of steps if it comes to the end.
    """
    steps = Steps(last)

    async def run() -> None:
        async with site.opened() as repository:
            steps.armed = True
            await publish(repository, *archives)
            steps.armed = False

    asyncio.run(run())
    answer.send(steps.count)


def change_until(
    site: NativeSite,
    put: Sequence[ImageDocuments],
    gone: tuple[Sequence[str], Sequence[Digest]],
    last: int | None,
    answer: Connection,
) -> None:
    """Put and remove images and layers as one batch; otherwise as `publish_until`.

    Parameters
    ----------
    put
        The images.
    gone
        The names of images, and the layers, that are removed.
    last, answer
        As of `publish_until`.
    """
    steps = Steps(last)

    async def run() -> None:
        async with site.opened() as repository:
            steps.armed = True
            await change(repository, put=put, remove=gone[0], remove_layers=gone[1])
            steps.armed = False

    asyncio.run(run())
    answer.send(steps.count)


def create_until(site: NativeSite, last: int | None, answer: Connection) -> None:
    """Create a repository, and those of its keys that are missing; otherwise as `publish_until`."""
    steps = Steps(last)
    steps.armed = True
    site.create()
    steps.armed = False
    answer.send(steps.count)


def collect_until(site: NativeSite, now: float, last: int | None, answer: Connection) -> None:
    """Collect everything but the newest revision, at a given time; otherwise as `publish_until`."""
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys, clock=lambda: now)
    collector = Collector(
        access=access,
        retention=Retention(revisions=1, days=0),
        forget=lambda _digests: None,
        patience=0,
        clock=lambda: now,
    )
    steps = Steps(last)
    steps.armed = True
    collector.collect()
    steps.armed = False
    answer.send(steps.count)
