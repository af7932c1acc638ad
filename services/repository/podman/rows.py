"""The two lists of a store, `overlay-images/images.json` and `overlay-layers/layers.json`.

Their form is that of containers-storage 1.57 (podman 5.4), `images.go` and `layers.go`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from services.common.digest import Digest
from services.repository.errors import ImageAdditionError

__all__ = ["GZIP", "PLAIN", "ZSTD", "Identifier", "ImageRow", "LayerRow", "read_images", "read_layers", "write_rows"]

PLAIN: Final = 0
GZIP: Final = 2
ZSTD: Final = 4


def _digest(value: object) -> Digest:
    return Digest(value if isinstance(value, str) else "")


Identifier = Annotated[Digest, PlainValidator(_digest), PlainSerializer(str)]
"""A pydantic field that holds the identifier of a layer or of an image."""
_Moment = Annotated[str, Field(max_length=64)] | None
_OciDigest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, populate_by_name=True)


class LayerRow(_Row):
    """A layer on those below it."""

    id: Identifier
    parent: Identifier | None = None
    created: _Moment = None
    compressed_diff_digest: Annotated[_OciDigest, Field(alias="compressed-diff-digest")]
    """Of the archive."""
    compressed_size: Annotated[int, Field(alias="compressed-size", ge=0)]
    """Of the archive, in bytes."""
    diff_digest: Annotated[_OciDigest, Field(alias="diff-digest")]
    """Of the tar stream."""
    diff_size: Annotated[int, Field(alias="diff-size", ge=0)]
    """Of the tar stream, in bytes."""
    compression: int = PLAIN
    """Of the archive: `PLAIN`, `GZIP` or `ZSTD`."""


class ImageRow(_Row):
    """An image, which may have several names, or none any more."""

    id: Identifier
    """SHA-256 of its configuration."""
    digest: _OciDigest
    """Of its manifest."""
    names: list[str] = []
    layer: Identifier | None = None
    """Identifier of its topmost layer."""
    metadata: str = "{}"
    big_data_names: Annotated[list[str], Field(alias="big-data-names")]
    big_data_sizes: Annotated[dict[str, int], Field(alias="big-data-sizes")]
    big_data_digests: Annotated[dict[str, _OciDigest], Field(alias="big-data-digests")]
    created: _Moment = None


_AnyRow = TypeVar("_AnyRow", bound=_Row)
_IMAGES: Final = TypeAdapter(list[ImageRow])
_LAYERS: Final = TypeAdapter(list[LayerRow])


def read_images(content: bytes, *, where: str) -> list[ImageRow]:
    """Read `images.json`.

    Parameters
    ----------
    where
        Path of the file, for errors.

    Raises
    ------
    ImageAdditionError
        It is not as this suite writes it.
    """
    return _read(_IMAGES, content, where)


def read_layers(content: bytes, *, where: str) -> list[LayerRow]:
    """Read `layers.json`; parameters and errors as of `read_images`."""
    return _read(_LAYERS, content, where)


def _read(form: TypeAdapter[list[_AnyRow]], content: bytes, where: str) -> list[_AnyRow]:
    try:
        return form.validate_json(content)
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise ImageAdditionError(
            f"{where} is not as this suite writes it ({place}: {first['msg']}): "
            "move the store away, and publish its images again"
        ) from None


def write_rows(rows: Sequence[_Row], others: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """Write either list; `others` are rows of other programs, which follow as they are."""
    documents = [*(row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in rows), *others]
    return json.dumps(documents, separators=(",", ":")).encode()
