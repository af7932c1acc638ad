"""The journal's rows of images and their versions, and what they say."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import ImageOutputs, outputs_document, read_outputs
from services.publisher.journal.image_model import (
    ImageRecord,
    ImageSelection,
    ImageState,
    ImageSummary,
    ImageVersion,
    PlatformImage,
    VersionLayer,
    VersionRecord,
)

__all__ = [
    "IMAGE_COLUMNS",
    "VERSION_COLUMNS",
    "image_of",
    "images_condition",
    "images_summary",
    "images_text",
    "outputs_text",
    "version_of",
    "version_record",
]

IMAGE_COLUMNS: Final = (
    "name, ask, reference, asked, digest, published, platforms, project, priority, verified, keep, outputs, state, "
    "attempts, share, reason, retryable, due, revision, bytes_known, bytes_missing, resolving, fetching, publishing, "
    "asked_at, checked_at, published_at, removed_at, updated_at"
)
VERSION_COLUMNS: Final = (
    "name, digest, reference, platforms, images, verified, outputs, published_at, replaced_at, removed_at, keep_until, "
    "collected_at"
)


def image_of(row: sqlite3.Row) -> ImageRecord:
    """Read a row of `IMAGE_COLUMNS`."""
    values: dict[str, Any] = dict(row)
    for name in ("asked", "digest", "published"):
        values[name] = None if row[name] is None else Digest(row[name])
    return ImageRecord(
        **values
        | {
            "name": ImageName(row["name"]),
            "platforms": tuple(json.loads(row["platforms"])),
            "verified": json.loads(row["verified"] or "null"),
            "outputs": _outputs(row),
            "state": ImageState(row["state"]),
            "retryable": bool(row["retryable"]),
        }
    )


def version_record(row: sqlite3.Row) -> VersionRecord:
    """Read a row of `VERSION_COLUMNS` that has been published."""
    values = {name: row[name] for name in ("reference", "replaced_at", "removed_at", "keep_until", "collected_at")}
    return VersionRecord(
        name=ImageName(row["name"]),
        digest=Digest(row["digest"]),
        platforms=tuple(json.loads(row["platforms"])),
        verified=json.loads(row["verified"] or "null"),
        outputs=_outputs(row),
        published_at=row["published_at"],
        **values,
    )


def version_of(row: sqlite3.Row, documents: Iterable[sqlite3.Row]) -> ImageVersion:
    """Read a row of `VERSION_COLUMNS` and the rows of path and content that belong to it."""
    return ImageVersion(
        name=ImageName(row["name"]),
        digest=Digest(row["digest"]),
        reference=row["reference"],
        platforms=tuple(json.loads(row["platforms"])),
        images=tuple(_platform_image(*entry) for entry in json.loads(row["images"])),
        documents={document["path"]: document["content"] for document in documents},
        verified=json.loads(row["verified"] or "null"),
        outputs=_outputs(row),
    )


def outputs_text(outputs: ImageOutputs) -> str | None:
    """Write what a row says of outputs; None where there are none."""
    return json.dumps(outputs_document(outputs)) if outputs else None


def _outputs(row: sqlite3.Row) -> ImageOutputs:
    return read_outputs(json.loads(row["outputs"] or "{}"))


def images_text(version: ImageVersion) -> str:
    """Write what `version_of` reads of a version's images."""
    return json.dumps(
        [
            (
                image.platform,
                image.manifest,
                image.config,
                [(layer.digest, layer.diff_id, layer.size) for layer in image.layers],
            )
            for image in version.images
        ]
    )


def _platform_image(platform: str, manifest: str, config: str, layers: list[tuple[str, str, int]]) -> PlatformImage:
    return PlatformImage(
        platform,
        Digest(manifest),
        Digest(config),
        tuple(VersionLayer(Digest(digest), Digest(diff_id), size) for digest, diff_id, size in layers),
    )


def images_condition(selection: ImageSelection) -> tuple[str, dict[str, object]]:
    """Return a selection as an SQL condition, and the values of its parameters."""
    parts, values = ["true"], dict[str, object]()
    if selection.states:
        parts.append("state IN (SELECT value FROM json_each(:states))")
        values["states"] = json.dumps(selection.states)
    if selection.refused is not None:
        parts.append(f"{'' if selection.refused else 'NOT '}(state = 'failed' AND NOT retryable)")
    if selection.prefix:
        # Not LIKE, which would not use the primary key; names are ASCII, below the last one.
        parts.append("name >= :prefix AND name < :prefix || char(127)")
        values["prefix"] = selection.prefix
    return " AND ".join(parts), values


def images_summary(rows: Iterable[tuple[Any, ...]]) -> ImageSummary:
    """Read rows of state, whether it is tried again, number of images, and when the first was asked for."""
    counts, refused = dict.fromkeys(ImageState, 0), 0
    oldest: list[float] = []
    for state, retryable, count, first in rows:
        counts[ImageState(state)] += count
        if state == ImageState.FAILED and not retryable:
            refused += count
        elif state not in (ImageState.PUBLISHED, ImageState.REMOVED):
            oldest.append(first)
    return ImageSummary(counts=counts, refused=refused, oldest=min(oldest, default=None))
