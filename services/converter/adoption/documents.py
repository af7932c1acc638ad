"""The documents that DUCC leaves beside images, as far as anything follows from them.

DUCC writes them anew from what it has read of a registry, so that they have no digest that anybody knows, and by
structures of Go's that name nothing: whether a key begins with a capital letter depends on its version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.image_outputs import ImageOutputs, read_outputs
from services.converter.adoption.files import read_json
from services.converter.errors import AdoptionError
from services.repository.outputs import RECORD, RECORDED

__all__ = ["Manifest", "own_outputs", "read_manifest", "stored_rows"]

_MANIFEST_LIMIT: Final = 4 << 20
_RECORD_LIMIT: Final = 4 << 20
_ROWS_LIMIT: Final = 256 << 20
"""Largest list of a store, in bytes: some hundred thousand layers."""
_LAYERS: Final = 1000
"""Most layers of an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image for one platform."""

    config: Digest
    """SHA-256 of its configuration."""
    layers: tuple[Digest, ...]
    """Base first."""


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of an image.

    Parameters
    ----------
    directory
        That of its documents.

    Raises
    ------
    AdoptionError
        There is none that can be read.
    """
    manifest = _lower(_document(directory, "manifest.json"))
    layers = manifest.get("layers") or []
    if not isinstance(layers, list) or len(layers) > _LAYERS:
        raise AdoptionError("manifest.json: its layers are no list, or too many")
    return Manifest(config=_digest(manifest.get("config")), layers=tuple(map(_digest, layers)))


def _document(directory: Path, file: str) -> Any:  # noqa: ANN401 - a JSON document
    try:
        document = read_json(directory / file, limit=_MANIFEST_LIMIT)
    except AdoptionError as error:
        raise AdoptionError(f"{file}: {error}") from error
    if document is None:
        raise AdoptionError(f"there is no {file}")
    return document


def _digest(descriptor: object) -> Digest:
    try:
        return Digest.from_oci(str(_lower(descriptor).get("digest", "")))
    except InvalidValueError as error:
        raise AdoptionError(f"manifest.json: {error}") from None


def _lower(document: object) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise AdoptionError("manifest.json: it is no manifest")
    return {key.lower(): value for key, value in document.items()}


def own_outputs(name: ImageName, directory: Path) -> ImageOutputs | None:
    """Return the outputs of an image that this suite has published; None of one that it has not.

    Parameters
    ----------
    directory
        That of its documents.

    Raises
    ------
    AdoptionError
        It cannot be told.
    """
    try:
        record = read_json(directory / RECORD, limit=_RECORD_LIMIT)
    except AdoptionError as error:
        raise AdoptionError(f"{RECORD}: {error}") from error
    if not isinstance(record, dict) or record.get("version") != 1 or record.get("name") != name:
        return None
    try:
        return read_outputs(record.get(RECORDED) or {})
    except InvalidValueError as error:
        raise AdoptionError(f"{RECORD}: {error}") from None


def stored_rows(file: Path) -> Sequence[Digest]:
    """Return the identifiers that a list of a store has.

    Raises
    ------
    AdoptionError
        It cannot be read.
    """
    rows = read_json(file, limit=_ROWS_LIMIT)
    if not isinstance(rows, list):
        raise AdoptionError("it is no list")
    found = []
    for row in rows:
        try:
            found.append(Digest(str(row["id"])))
        except (InvalidValueError, LookupError, TypeError):
            raise AdoptionError("it has a row without an identifier") from None
    return found
