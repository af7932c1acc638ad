"""The journal's rows of images and their versions, and what they say."""

import json
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, not_

from services.common.database.expressions import constant, given, listed
from services.common.database.interface import Row
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
from services.publisher.journal.tables import image_versions, images

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

_i: Final = images.c
_v: Final = image_versions.c
IMAGE_COLUMNS: Final = (
    _i.name,
    _i.ask,
    _i.reference,
    _i.asked,
    _i.digest,
    _i.published,
    _i.platforms,
    _i.project,
    _i.priority,
    _i.verified,
    _i.keep,
    _i.outputs,
    _i.state,
    _i.attempts,
    _i.share,
    _i.reason,
    _i.retryable,
    _i.due,
    _i.revision,
    _i.bytes_known,
    _i.bytes_missing,
    _i.resolving,
    _i.fetching,
    _i.publishing,
    _i.asked_at,
    _i.checked_at,
    _i.published_at,
    _i.removed_at,
    _i.updated_at,
    _i.claimed_by,
)
VERSION_COLUMNS: Final = (
    _v.name,
    _v.digest,
    _v.reference,
    _v.platforms,
    _v.images,
    _v.verified,
    _v.outputs,
    _v.published_at,
    _v.replaced_at,
    _v.removed_at,
    _v.keep_until,
    _v.collected_at,
)


def image_of(row: Row) -> ImageRecord:
    """Read a row of `IMAGE_COLUMNS`."""
    values: dict[str, Any] = {name: row[name] for name in row.keys()}  # noqa: SIM118 - a row is no dictionary
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


def version_record(row: Row) -> VersionRecord:
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


def version_of(row: Row, documents: Iterable[Row]) -> ImageVersion:
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


def _outputs(row: Row) -> ImageOutputs:
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


def images_condition(selection: ImageSelection) -> tuple[list[ColumnElement[bool]], dict[str, object]]:
    """Return a selection as conditions, and the values of their parameters."""
    parts, values = list[ColumnElement[bool]](), dict[str, object]()
    if selection.states:
        parts.append(_i.state.in_(listed("states")))
        values["states"] = json.dumps(selection.states)
    if selection.refused is not None:
        refused = and_(_i.state == constant(ImageState.FAILED), _i.retryable == 0)
        parts.append(refused if selection.refused else not_(refused))
    if selection.prefix:
        # Not LIKE, which would not use the primary key; names are ASCII, below the last one.
        parts += (_i.name >= given("prefix"), _i.name < given("behind_prefix"))
        values |= {"prefix": selection.prefix, "behind_prefix": f"{selection.prefix}\x7f"}
    return parts, values


def images_summary(rows: Iterable[Row]) -> ImageSummary:
    """Read rows of state, whether it is tried again, number of images, and when the first was asked for."""
    counts, refused = dict.fromkeys(ImageState, 0), 0
    oldest: list[float] = []
    for row in rows:
        state, number = ImageState(row["state"]), row["number"]
        counts[state] += number
        if state == ImageState.FAILED and not row["retryable"]:
            refused += number
        elif state not in (ImageState.PUBLISHED, ImageState.REMOVED):
            oldest.append(row["oldest"])
    return ImageSummary(counts=counts, refused=refused, oldest=min(oldest, default=None))
