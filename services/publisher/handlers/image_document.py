"""What is answered about an image."""

from collections.abc import Sequence

from services.common.digest import Digest
from services.common.image_outputs import outputs_document
from services.common.times import time_text
from services.publisher.journal.image_model import ImageRecord, ImageState, VersionLayer, VersionRecord
from services.publisher.pipeline.images.claims import ImageWork, LayerStep

__all__ = ["image_document", "image_layers", "version_document"]


def image_document(
    record: ImageRecord, layers: Sequence[VersionLayer], work: ImageWork | None, *, publisher: str | None
) -> dict[str, object]:
    """Describe an image.

    Parameters
    ----------
    record
        What the journal says of it.
    layers
        Those of the version that it has, or is to have.
    work
        How far it is, while this publisher works on it.
    publisher
        Name of the one that works on it.
    """
    failed = record.state is ImageState.FAILED
    whole = _is_whole(record)
    fetched = record.bytes_missing if whole else 0
    return {
        "name": record.name,
        "reference": record.reference,
        "digest": _oci(record.digest or record.asked),
        "platforms": record.platforms,
        "project": record.project,
        "priority": record.priority,
        "state": record.state,
        "publisher": publisher,
        "published_digest": _oci(record.published),
        "revision": record.revision,
        "reason": record.reason,
        "retryable": record.retryable if failed else None,
        "next_attempt": time_text(record.due) if failed and record.due else None,
        "attempts": record.attempts,
        "verified": record.verified,
        "outputs": outputs_document(record.outputs),
        "layers": image_layers(record, layers, work),
        "bytes_fetched": (fetched if work is None or whole else work.fetched) or 0,
        "bytes_known": record.bytes_known or 0,
        "steps": {"resolving": record.resolving, "fetching": record.fetching, "publishing": record.publishing},
        "asked_at": time_text(record.asked_at),
        "checked_at": _time(record.checked_at),
        "published_at": _time(record.published_at),
        "removed_at": _time(record.removed_at),
        "updated_at": time_text(record.updated_at),
    }


def image_layers(
    record: ImageRecord, layers: Sequence[VersionLayer], work: ImageWork | None
) -> list[dict[str, object]]:
    """Describe the layers of an image; the parameters are those of `image_document`."""
    steps = {} if work is None or work.record.ask != record.ask else work.steps
    whole = _is_whole(record)
    return [
        {
            "digest": layer.digest,
            "size": layer.size,
            "state": LayerStep.PUBLISHED if whole else steps.get(layer.digest, LayerStep.MISSING),
        }
        for layer in layers
    ]


def version_document(version: VersionRecord) -> dict[str, object]:
    """Describe a version of an image."""
    return {
        "digest": version.digest.oci,
        "reference": version.reference,
        "platforms": version.platforms,
        "verified": version.verified,
        "outputs": outputs_document(version.outputs),
        "published_at": time_text(version.published_at),
        "replaced_at": _time(version.replaced_at),
        "removed_at": _time(version.removed_at),
        "keep_until": _time(version.keep_until),
        "collected_at": _time(version.collected_at),
    }


def _is_whole(record: ImageRecord) -> bool:
    return record.published is not None and record.published == record.shown


def _oci(digest: Digest | None) -> str | None:
    return None if digest is None else digest.oci


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else time_text(seconds)
