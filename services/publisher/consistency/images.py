"""Compares repository and journal, image by image.

Images change meanwhile; so one about which they seem to disagree is looked at once more, by itself.
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Final

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.publisher.consistency.model import Disagreement, Finding
from services.publisher.journal.image_model import ImageRecord, ImageSelection
from services.publisher.journal.journal import Journal
from services.publisher.pipeline.images.documents import described_digest, documents_of, is_described
from services.publisher.pipeline.images.shown import has_its_flats, is_shown
from services.repository.ducc import is_ducc_metadata
from services.repository.interface import ImageDocuments, Repository, StoredImage
from services.repository.podman.shown import wanted_in_stores

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
        wanted: set[StoredImage] = set()
        after = ""
        while page := await self._journal.images.page(ImageSelection(), after=after, limit=_PAGE):
            stored = await self._in_stores(page)
            wanted.update(*map(wanted_in_stores, stored))
            missing = await self._repository.not_in_stores(stored) if stored else ()
            for record in page:
                there.discard(record.name)
                yield await self._judge(record, is_stored=record.name not in missing)
            after = page[-1].name
        for name in sorted(there):
            yield await self._judge_unknown(name)
        flats = await self._unknown_flats()
        ducc_flats = await self._repository.ducc_flats(flats) if flats else ()
        for config in sorted(flats):
            is_duccs = config in ducc_flats
            yield Finding(config, Disagreement.OF_DUCC if is_duccs else Disagreement.FLAT_ONLY_IN_REPOSITORY)
        for image in sorted(await self._unknown_names(wanted)):
            yield Finding(image.config, Disagreement.STORE_ONLY_IN_REPOSITORY, _image_name(image))

    async def _in_stores(self, records: Sequence[ImageRecord]) -> Sequence[ImageDocuments]:
        """Return those of the published images that are to be in stores."""
        versions = [
            await self._journal.versions.read(record.name, record.published)
            for record in records
            if record.published is not None
        ]
        return [documents_of(each, now=0) for each in versions if each is not None and each.outputs.podman is not None]

    async def _judge(self, record: ImageRecord, *, is_stored: bool) -> Finding | None:
        finding = await self._compare(record, is_stored=is_stored)
        # If it has changed meanwhile it is being worked on.
        return finding if await self._journal.images.get(record.name) == record else None

    async def _compare(self, record: ImageRecord, *, is_stored: bool) -> Finding | None:
        name = record.name
        documents = await self._repository.read_image(name)
        if record.published is None:
            return None if documents is None else _unknown(name, documents)
        if documents is None:
            return Finding(record.published, Disagreement.IMAGE_NOT_IN_REPOSITORY, name)
        version = await self._journal.versions.read(name, record.published)
        if version is None or not is_described(version, documents):
            shown = described_digest(name, documents)
            former = {each.digest for each in await self._journal.versions.of(name)} - {record.published}
            kind = Disagreement.IMAGE_FORMER if shown in former else Disagreement.IMAGE_OTHER
            return Finding(record.published, kind, name)
        if not await has_its_flats(self._repository, version) or not (
            is_stored or await is_shown(self._repository, version)
        ):
            return Finding(record.published, Disagreement.IMAGE_NOT_SHOWN, name)
        return None

    async def _unknown_flats(self) -> frozenset[Digest]:
        there = frozenset(await self._repository.list_flats())
        # In this order: one that is published meanwhile is in the journal when that is read.
        return there - await self._journal.flats.all()

    async def _unknown_names(self, wanted: Collection[StoredImage]) -> Collection[StoredImage]:
        """Return what stores show by names that the journal does not have there."""
        suspects = {image for image in await self._repository.list_stored() if image.name} - frozenset(wanted)
        if not suspects:
            return ()
        # Images change meanwhile: one may have come into a store, or gone, since the journal was read.
        records = {image: await self._record_of(image) for image in suspects}
        there = await self._repository.list_stored()
        return [image for image, record in records.items() if image in there and await self._is_unknown(image, record)]

    async def _record_of(self, image: StoredImage) -> ImageRecord | None:
        name = _image_name(image)
        return None if name is None else await self._journal.images.get(name)

    async def _is_unknown(self, image: StoredImage, record: ImageRecord | None) -> bool:
        stored = [] if record is None else await self._in_stores([record])
        wanted = any(image in wanted_in_stores(documents) for documents in stored)
        return not wanted and await self._record_of(image) == record

    async def _judge_unknown(self, name: ImageName) -> Finding | None:
        documents = await self._repository.read_image(name)
        if documents is None or await self._journal.images.get(name) is not None:
            return None
        return _unknown(name, documents)


def _unknown(name: ImageName, documents: Mapping[str, bytes]) -> Finding:
    is_duccs = _is_ducc_image(name, documents)
    kind = Disagreement.OF_DUCC if is_duccs else Disagreement.IMAGE_NOT_IN_JOURNAL
    return Finding(described_digest(name, documents), kind, name)


def _is_ducc_image(name: ImageName, documents: Mapping[str, bytes]) -> bool:
    """Tell whether documents, by their paths, are as DUCC leaves them: a manifest in the directory of each platform."""
    found: dict[str, set[str]] = {}
    for path in documents:
        directory, _, file = path.rpartition("/")
        found.setdefault(directory, set()).add(file)
    return name.path in found and all(map(is_ducc_metadata, found.values()))


def _image_name(image: StoredImage) -> ImageName | None:
    try:
        return ImageName(image.name)
    except InvalidValueError:
        return None
