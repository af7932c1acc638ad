"""Publishers of one repository in a bucket, each in a process of its own, as on machines of their own."""

import asyncio
from collections.abc import Sequence
from multiprocessing.connection import Connection

from services.common.archive.model import LayerArchive
from services.repository.errors import ForeignTransactionError
from services.repository.interface import PreparedLayer
from services.repository.native.repository import NativeRepository
from tests.support.bucket_site import BucketSite
from tests.support.publisher import verified

__all__ = ["publish_as", "publish_prepared"]


async def publish_prepared(repository: NativeRepository, layers: Sequence[PreparedLayer]) -> tuple[int, int]:
    """Publish layers as one batch, again while others are quicker; return the revision and how often that was."""
    overtaken = 0
    while True:
        try:
            async with repository.transaction("token") as transaction:
                for layer in layers:
                    await transaction.add(layer)
                return await transaction.publish(), overtaken
        except ForeignTransactionError:
            overtaken += 1


def publish_as(site: BucketSite, archives: Sequence[LayerArchive], answer: Connection) -> None:
    """Publish layers as one batch; a target for a process of its own. The answer is that of `publish_prepared`."""

    async def run() -> tuple[int, int]:
        async with site.opened() as repository:
            layers = [await repository.prepare(verified(archive)) for archive in archives]
            done = await publish_prepared(repository, layers)
            for layer in layers:
                await repository.discard(layer)
            return done

    answer.send(asyncio.run(run()))
