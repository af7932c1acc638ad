"""Layers in the publisher's journal."""

from typing import Any

from services.common.digest import Digest
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord, LayerState

__all__ = ["layer_record", "numbered", "recorded"]


def numbered(number: int) -> Digest:
    """Return a digest by its number."""
    return Digest(f"{number:064x}")


def layer_record(digest: Digest, state: LayerState, **known: Any) -> LayerRecord:  # noqa: ANN401 - the fields of a record
    """Make the record of a layer of which nothing else is known."""
    nothing: dict[str, Any] = {
        "attempts": 0,
        "share": None,
        "reason": None,
        "retryable": False,
        "due": 0,
        "revision": None,
        "archive_size": None,
        "tree_size": None,
        "announced_at": 0,
        "updated_at": 0,
    }
    return LayerRecord(digest=digest, state=state, **(nothing | known))


async def recorded(journal: Journal, digest: Digest) -> LayerRecord:
    """Return the record of a layer that the journal knows."""
    record = await journal.get(digest)
    assert record is not None
    return record
