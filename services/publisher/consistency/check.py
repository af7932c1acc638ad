"""Compares repository, journal and bucket, layer by layer, and then image by image.

The three are listed in the order of digests and merged, so that memory does not depend on how many layers there are.
They change meanwhile; so a layer about which they seem to disagree is looked at once more, by itself.
"""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from services.common.object_store.errors import ObjectConflictError
from services.common.object_store.model import StoredLayer
from services.common.object_store.store import ObjectStore
from services.common.together import all_of
from services.publisher.consistency.images import ImageCheck
from services.publisher.consistency.merge import merge
from services.publisher.consistency.model import Disagreement, Finding, Sighting
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord, Selection
from services.repository.interface import ListedLayer, Repository

__all__ = ["CheckProgress", "ConsistencyCheck"]

_PAGE: Final = 1000
"""Layers that are read from the journal at once."""
_TOGETHER: Final = 32
"""Layers that are looked at once more at the same time."""
_SHARDS: Final = tuple(f"{number:02x}" for number in range(256))


@dataclass(slots=True)
class CheckProgress:
    """How far a check is."""

    layers: int = 0
    """Layers that have been compared."""
    images: int = 0
    """Images that have been compared."""
    found: Counter[Disagreement] = field(default_factory=Counter)
    """Disagreements so far."""


class ConsistencyCheck:
    """Finds every layer about which repository, journal and bucket disagree, and every image likewise."""

    def __init__(self, *, journal: Journal, store: ObjectStore, repository: Repository) -> None:
        self._journal = journal
        self._images = ImageCheck(journal=journal, repository=repository)
        self._store = store
        self._repository = repository

    async def run(self, progress: CheckProgress) -> AsyncGenerator[Finding, None]:
        """Compare everything, and give what is found while it goes on.

        Parameters
        ----------
        progress
            Told how far it is.

        Raises
        ------
        JournalError, ObjectStoreError, RepositoryError
            One of the three could not be read.
        """
        suspects: list[Sighting] = []
        async with aclosing(merge(self._recorded(), self._listed(), self._stored())) as rows:
            async for digest, (record, listed, stored) in rows:
                progress.layers += 1
                sighting = Sighting(digest=digest, record=record, listed=listed, stored=stored)
                if sighting.judge() is not None:
                    suspects.append(sighting)
                if len(suspects) == _TOGETHER:
                    for finding in await self._confirm(suspects, progress):
                        yield finding
                    suspects.clear()
        for finding in await self._confirm(suspects, progress):
            yield finding
        async with aclosing(self._images.run()) as findings:
            async for image in findings:
                progress.images += image is None or image.image is not None
                if image is not None:
                    progress.found[image.kind] += 1
                    yield image

    async def _recorded(self) -> AsyncGenerator[LayerRecord, None]:
        after = ""
        while page := await self._journal.page(Selection(), after=after, limit=_PAGE):
            for record in page:
                yield record
            after = page[-1].digest

    async def _listed(self) -> AsyncGenerator[ListedLayer, None]:
        for shard in _SHARDS:
            for layer in await self._repository.list_layers(shard):
                yield layer

    async def _stored(self) -> AsyncGenerator[StoredLayer, None]:
        async for layer in self._store.list_layers():
            yield layer

    async def _confirm(self, suspects: list[Sighting], progress: CheckProgress) -> list[Finding]:
        kinds = await all_of(self._look_again(sighting) for sighting in suspects)
        findings = [
            Finding(sighting.digest, kind) for sighting, kind in zip(suspects, kinds, strict=True) if kind is not None
        ]
        progress.found.update(finding.kind for finding in findings)
        return findings

    async def _look_again(self, before: Sighting) -> Disagreement | None:
        digest = before.digest
        record = await self._journal.get(digest)
        listed = before.listed
        if await self._repository.lookup(digest) is None:
            listed = listed if listed is not None and not listed.whole else None
        elif listed is None or not listed.whole:
            listed = ListedLayer(digest=digest, whole=True, linked=True)
        try:
            stored = await self._store.head(digest)
        except ObjectConflictError:
            stored = before.stored  # an object whose metadata are wrong is an object
        if await self._journal.get(digest) != record:
            return None  # it is being worked on
        return Sighting(digest=digest, record=record, listed=listed, stored=stored).judge()
