"""Works on a repository of kind directory in a process that is killed on the way."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.layout import LayerLayout
from services.repository.directory.repository import DirectoryRepository
from services.repository.images import ImageDocuments
from tests.support.images import change
from tests.support.killed import Steps
from tests.support.publisher import REPOSITORY

__all__ = ["change_until", "opened_directory", "put_until"]


def opened_directory(root: Path, threads: ThreadPoolExecutor) -> DirectoryRepository:
    """Make the repository that the tests of kills work on."""
    return DirectoryRepository(name=REPOSITORY, root=root, layout=LayerLayout.FLAT, threads=threads)


def change_until(
    root: Path,
    layers: Sequence[LayerArchive],
    images: Sequence[ImageDocuments],
    gone: tuple[Sequence[str], Sequence[Digest]],
    last: int | None,
    answer: Connection,
) -> None:
    """Publish one batch, of which the steps of publishing count; a target for a process of its own.

    Parameters
    ----------
    root
        Root of the repository.
    layers, images
        What the batch brings.
    gone
        The images and the layers that it removes.
    last
        The step at which the process is killed; None goes to the end.
    answer
        Gets the number of steps if it comes to the end.
    """
    steps = Steps(last)

    async def run() -> None:
        with ThreadPoolExecutor(2) as threads:
            async with opened_directory(root, threads) as repository:
                await repository.recover(())
                await change(
                    repository,
                    layers=layers,
                    put=images,
                    remove=gone[0],
                    remove_layers=gone[1],
                    publishing=lambda: setattr(steps, "armed", True),
                )
                steps.armed = False

    asyncio.run(run())
    answer.send(steps.count)


def put_until(
    root: Path, images: Sequence[ImageDocuments], flats: Sequence[Digest], last: int | None, answer: Connection
) -> None:
    """Publish images, of which every step counts, and take flat images out; a target for a process of its own.

    Parameters
    ----------
    root
        Root of the repository.
    images
        What is put.
    flats
        What is removed.
    last
        The step at which the process is killed; None goes to the end.
    answer
        Gets the number of steps if it comes to the end.
    """
    steps = Steps(last)

    async def run() -> None:
        with ThreadPoolExecutor(2) as threads:
            async with opened_directory(root, threads) as repository, repository.transaction("token") as transaction:
                steps.armed = True
                for image in images:
                    await transaction.put_image(image)
                for config in flats:
                    await transaction.remove_flat(config)
                await transaction.publish()
                steps.armed = False

    asyncio.run(run())
    answer.send(steps.count)
