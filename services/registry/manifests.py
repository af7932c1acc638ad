"""Manifests, indexes and configurations of images, read into types that cannot hold a bad value."""

import json
import math
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.registry.documents import (
    CONFIG_TYPES,
    INDEX_TYPES,
    LAYER_TYPES,
    MANIFEST_TYPES,
    ConfigWire,
    DescriptorWire,
    IndexWire,
    ManifestWire,
)
from services.registry.errors import InvalidAnswerError, UnsupportedImageError
from services.registry.images import Candidate, ManifestContent
from services.registry.platform import Platform

__all__ = ["CONFIG_LIMIT", "MANIFEST_LIMIT", "media_type_of", "read_config", "read_index", "read_manifest"]

MANIFEST_LIMIT: Final = 4 << 20
"""Largest manifest or index, in bytes (what the OCI distribution specification lets registries refuse from)."""

CONFIG_LIMIT: Final = 8 << 20
"""Largest configuration of an image, in bytes."""

_Model = TypeVar("_Model", bound=BaseModel)


def _finite(text: str) -> float:
    """Read a number that JSON can hold; Python would also take NaN, and infinity for what is too large."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _document(content: bytes, where: str) -> dict[str, Any]:
    """Read a JSON object, and refuse one that could be read as either an image or an index (CVE-2021-41190)."""
    try:
        document = json.loads(content, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise InvalidAnswerError(
            f"{where} is not JSON: what the registry holds is damaged, push the image anew"
        ) from None
    if not isinstance(document, dict):
        raise InvalidAnswerError(
            f"{where} is not a JSON object: what the registry holds is damaged, push the image anew"
        )
    if "manifests" in document and ("layers" in document or "config" in document):
        raise InvalidAnswerError(f"{where} claims to be an image and an index: do not use it")
    if document.get("schemaVersion") == 1:
        raise UnsupportedImageError(
            f"{where} is a schema 1 manifest, a form that was given up in 2017 and names no layers "
            "that can be verified: pull the image and push it again with a current Docker"
        )
    return document


def _validate(model: type[_Model], document: dict[str, Any], where: str) -> _Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False)[:5]
        )
        raise InvalidAnswerError(f"{where} is not valid: {problems}: push the image anew") from None


def media_type_of(content: bytes, declared: str, *, where: str) -> str:
    """Return the media type of a manifest or index.

    Parameters
    ----------
    content
        The bytes.
    declared
        What the registry says it is (`Content-Type`).
    where
        What it is, for errors.

    Raises
    ------
    InvalidAnswerError
        It is no JSON object, or the registry and the document disagree.
    UnsupportedImageError
        It is neither an image nor an index, or of schema 1.
    """
    document = _document(content, where)
    own = document.get("mediaType")
    known = (*MANIFEST_TYPES, *INDEX_TYPES)
    if own in known and declared in known and own != declared:
        raise InvalidAnswerError(f"{where} is {own} and the registry says {declared}: do not use it")
    for media_type in (own, declared):
        if media_type in known:
            return str(media_type)
    if own is None and "manifests" in document:
        return INDEX_TYPES[0]
    if own is None and "layers" in document:
        return MANIFEST_TYPES[0]
    raise UnsupportedImageError(
        f"{where} is no container image but {str(own or declared)[:200]!r}: nothing can be made of it"
    )


def read_index(content: bytes, *, where: str) -> tuple[Candidate, ...]:
    """Return the images and further indexes of an index, in its order, without attestations and whatever else it names.

    Raises
    ------
    InvalidAnswerError
        It is not of its form.
    UnsupportedImageError
        It names no image.
    """
    descriptors = _validate(IndexWire, _document(content, where), where).manifests
    found = []
    for descriptor in descriptors:
        if not descriptor.is_image:
            continue
        if descriptor.size > MANIFEST_LIMIT:
            raise InvalidAnswerError(
                f"{where} names a manifest of {descriptor.size} bytes, at most {MANIFEST_LIMIT} are read: "
                "push the image anew"
            )
        platform = None if descriptor.platform is None else descriptor.platform.checked()
        found.append(
            Candidate(
                digest=Digest.from_oci(descriptor.digest),
                size=descriptor.size,
                platform=platform,
                is_index=descriptor.media_type in INDEX_TYPES,
            )
        )
    if not found:
        there = ", ".join(sorted({repr(each.artifact_type or each.media_type) for each in descriptors})) or "nothing"
        raise UnsupportedImageError(f"{where} names no image but {there}: name the image that you want by its digest")
    return tuple(found)


def read_manifest(content: bytes, *, where: str) -> ManifestContent:
    """Return what an image's manifest names.

    Raises
    ------
    InvalidAnswerError
        It is not of its form.
    UnsupportedImageError
        It is not a container image, or has layers that the registry does not hold.
    """
    manifest = _validate(ManifestWire, _document(content, where), where)
    if manifest.config.media_type not in CONFIG_TYPES:
        raise UnsupportedImageError(
            f"{where} is no container image, its configuration is {manifest.config.media_type!r}: "
            "nothing can be made of it"
        )
    if manifest.config.size > CONFIG_LIMIT:
        raise InvalidAnswerError(
            f"{where} has a configuration of {manifest.config.size} bytes, at most {CONFIG_LIMIT} are read: "
            "make the image with less in its labels and history"
        )
    return ManifestContent(
        config_digest=Digest.from_oci(manifest.config.digest),
        config_size=manifest.config.size,
        layers=tuple(
            _layer(descriptor, f"{where}, layer {number}") for number, descriptor in enumerate(manifest.layers, 1)
        ),
    )


def _layer(descriptor: DescriptorWire, where: str) -> tuple[Digest, int, MediaType]:
    foreign = "foreign" in descriptor.media_type or "nondistributable" in descriptor.media_type
    if foreign or descriptor.urls:
        raise UnsupportedImageError(
            f"{where} is a foreign layer, which the registry does not hold: ask those who made the image for one "
            "without foreign layers"
        )
    if descriptor.media_type not in LAYER_TYPES:
        raise UnsupportedImageError(
            f"{where} is {descriptor.media_type!r}; tar, tar+gzip and tar+zstd can be converted: "
            "make the image anew as one of them"
        )
    return Digest.from_oci(descriptor.digest), descriptor.size, LAYER_TYPES[descriptor.media_type]


def read_config(content: bytes, *, where: str) -> tuple[Platform, tuple[Digest, ...]]:
    """Return the platform and the diff IDs, base first, of an image's configuration.

    Raises
    ------
    InvalidAnswerError
        It is not of its form.
    """
    config = _validate(ConfigWire, _document(content, where), where)
    if not config.os or not config.architecture:
        raise InvalidAnswerError(f"{where} does not say what platform the image is for: push the image anew")
    return config.checked(), tuple(map(Digest.from_oci, config.rootfs.diff_ids))
