"""Who works on layers and images, as answers name them."""

from collections.abc import Iterable, Mapping

from services.publisher.journal.image_model import ImageRecord
from services.publisher.journal.model import LayerRecord
from services.publisher.journal.publishers import PublisherJournal
from services.publisher.status.publishers import Publishers

__all__ = ["claimants"]


async def claimants(
    publishers: PublisherJournal, records: Iterable[LayerRecord | ImageRecord]
) -> Mapping[str | None, str]:
    """Name the publishers that work on layers or images, by what the records say; on most, none does."""
    found = {record.claimed_by for record in records if record.claimed_by is not None}
    if not found:
        return {}
    known = Publishers(await publishers.list())
    return {publisher: known.name_of(publisher) for publisher in found}
