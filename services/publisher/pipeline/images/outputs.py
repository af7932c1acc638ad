"""What is told of an image's outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.common.digest import Digest
from services.publisher.journal.flats import FlatJournal
from services.publisher.journal.image_model import ImageRecord
from services.publisher.journal.versions import VersionJournal
from services.publisher.pipeline.images.shown import places_of

__all__ = ["OutputsReader", "PublishedOutputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedOutputs:
    """The outputs that readers of the repository have of an image."""

    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Paths relative to the root of the repository, by the outputs' names."""
    reports: Mapping[Digest, Mapping[str, Any]] = field(default_factory=dict)
    """What people must know of the flat images, by their configurations: of each kind of difference to what Apptainer
    itself would unpack, `count` and the `first` ones."""


class OutputsReader:
    """Reads it from the journal."""

    def __init__(self, *, versions: VersionJournal, flats: FlatJournal) -> None:
        self._versions = versions
        self._flats = flats

    async def read(self, record: ImageRecord) -> PublishedOutputs:
        """Return the outputs of the version that is published.

        Raises
        ------
        JournalError
            The journal cannot be read.
        """
        # Whoever asks for none, as for most images, gets the answer without a look at any version.
        if record.published is None or not record.outputs:
            return PublishedOutputs()
        version = await self._versions.read(record.name, record.published)
        reports = await self._flats.reports(record.name, record.published)
        return PublishedOutputs(
            places={} if version is None else places_of(version),
            reports={config: report for config, report in reports.items() if report},
        )
