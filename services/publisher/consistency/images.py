"""Compares repository and journal, image by image.

Images change meanwhile; so one about which they seem to disagree is looked at once more, by itself.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.publisher.consistency.model import Disagreement, Finding
from services.publisher.journal.image_model import ImageRecord, ImageSelection
from services.publisher.journal.journal import Journal
from services.publisher.pipeline.images.documents import described_digest, is_described
from services.publisher.pipeline.images.shown import is_shown
from services.repository.interface import Repository

__all__ = ["ImageCheck"]

_PAGE: Final = 1000
"""Images that are read from the journal at once."""


class ImageCheck:
    """Finds every image about which repository and journal disagree."""

    def __init__(self, *, journal: Journal, repository: Repository) -> None:
        self._journal = journal
        self._repository = repository

    async def run(self) -> AsyncGenerator[Finding | None, None]:
        """Compare all images, and flat images; give what is found of each, or None where nothing is.

        Raises
        ------
        JournalError, RepositoryError
            One of the two could not be read.
        """
        there = set(await self._repository.list_images())
        after = ""
        while page := await self._journal.images.page(ImageSelection(), after=after, limit=_PAGE):
            for record in page:
                there.discard(record.name)
                yield await self._judge(record)
            after = page[-1].name
        for name in sorted(there):
            yield await self._judge_unknown(name)
        for config in sorted(await self._unknown_flats()):
            yield Finding(config, Disagreement.FLAT_ONLY_IN_REPOSITORY)

    async def _judge(self, record: ImageRecord) -> Finding | None:
        finding = await self._compare(record)
        # If it has changed meanwhile it is being worked on.
        return finding if await self._journal.images.get(record.name) == record else None

    async def _compare(self, record: ImageRecord) -> Finding | None:
        name = record.name
        documents = await self._repository.read_image(name)
        if record.published is None:
            return None if documents is None else _unknown(name, documents)
        if documents is None:
            return Finding(record.published, Disagreement.IMAGE_NOT_IN_REPOSITORY, name)
        version = await self._journal.versions.read(name, record.published)
        if version is None or not is_described(version, documents):
            return Finding(record.published, Disagreement.IMAGE_OTHER, name)
        if not await is_shown(self._repository, version):
            return Finding(record.published, Disagreement.IMAGE_NOT_SHOWN, name)
        return None

    async def _unknown_flats(self) -> frozenset[Digest]:
        there = frozenset(await self._repository.list_flats())
        # In this order: one that is published meanwhile is in the journal when that is read.
        return there - await self._journal.flats.all()

    async def _judge_unknown(self, name: ImageName) -> Finding | None:
        documents = await self._repository.read_image(name)
        if documents is None or await self._journal.images.get(name) is not None:
            return None
        return _unknown(name, documents)


def _unknown(name: ImageName, documents: Mapping[str, bytes]) -> Finding:
    return Finding(described_digest(name, documents), Disagreement.IMAGE_NOT_IN_JOURNAL, name)
