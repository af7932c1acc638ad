"""The publishers of a repository, as people and metrics are told of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.publisher.journal.publishers import PublisherRecord

__all__ = ["Publishers", "Standing", "standing_of"]


class Standing(StrEnum):
    """What a publisher is among those that share its journal."""

    LEADING = "leading"
    """It does what one at a time does: sweeps, collections, renewals, and all of the work on a repository that has one
    writer."""
    FOLLOWING = "following"
    """It takes announcements and answers, works where the kind of repository lets several do so, and leads once nobody
    else does."""
    ENDED = "ended"
    """It was stopped, and has left nothing undone."""
    GONE = "gone"
    """It was killed, hangs, or does not reach the database; what it was working on is others' work now."""


def standing_of(record: PublisherRecord) -> Standing:
    """Say what a publisher is."""
    if record.gone:
        return Standing.ENDED if record.ended else Standing.GONE
    return Standing.LEADING if record.leads else Standing.FOLLOWING


@dataclass(frozen=True, slots=True)
class Publishers:
    """All that the journal knows, those that have ended or gone less than a day ago included.

    Parameters
    ----------
    records
        In any order.
    """

    records: Sequence[PublisherRecord]

    @property
    def shown(self) -> Sequence[PublisherRecord]:
        """Those that people are to see: who leads, the others, who has ended or gone; each by their names.

        One that was started again is the same for people: what it was before is left out where its name has come back.
        """
        present = {record.name for record in self.records if not record.gone}
        last: dict[str, PublisherRecord] = {}
        for record in sorted(self.records, key=lambda record: record.seen_at):
            if record.gone and record.name not in present:
                last[record.name] = record
        shown = [record for record in self.records if not record.gone] + list(last.values())
        order = list(Standing)
        return sorted(shown, key=lambda record: (order.index(standing_of(record)), record.name, record.id))

    @property
    def are_several(self) -> bool:
        """Whether there is anything to tell: of one that is alone there is not, whatever came before it."""
        return sum(standing_of(record) is not Standing.ENDED for record in self.shown) > 1

    @property
    def counts(self) -> Mapping[Standing, int]:
        """How many of those that are shown are what."""
        found = Counter(map(standing_of, self.shown))
        return {standing: found[standing] for standing in Standing}

    def name_of(self, publisher: str) -> str:
        """Return the name of one of them by its ID; the ID where it is not known any more."""
        return next((record.name for record in self.records if record.id == publisher), publisher)
