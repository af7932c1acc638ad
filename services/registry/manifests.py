"""Manifests, indexes and configurations of images, read into types that cannot hold a bad value.

Sources: OCI image specification 1.1 (manifest.md, image-index.md, config.md) and Docker's image manifest version 2,
schema 2.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.registry.errors import DigestMismatchError, InvalidAnswerError, UnsupportedImageError
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from services.registry.wire import WireObject

__all__ = [
    "CONFIG_LIMIT",
    "INDEX_TYPES",
    "MANIFEST_ACCEPT",
    "MANIFEST_LIMIT",
    "MANIFEST_TYPES",
    "Candidate",
    "Image",
    "ImageLayer",
    "ManifestContent",
    "RawManifest",
    "choosable",
    "join_layers",
    "media_type_of",
    "read_config",
    "read_index",
    "read_manifest",
]

MANIFEST_LIMIT: Final = 4 << 20
"""Largest manifest or index, in bytes (what the OCI distribution specification lets registries refuse from)."""

CONFIG_LIMIT: Final = 8 << 20
"""Largest configuration of an image, in bytes."""

_LAYERS: Final = 1000
"""Most layers of an image, and most images of an index."""

_SIZE_LIMIT: Final = 1 << 40
"""Largest blob, in bytes: 1 TiB. A larger size is a mistake or an attack."""

_OCI: Final = "application/vnd.oci.image"
_DOCKER: Final = "application/vnd.docker"

MANIFEST_TYPES: Final = (f"{_OCI}.manifest.v1+json", f"{_DOCKER}.distribution.manifest.v2+json")
"""Media types of a single image's manifest."""

INDEX_TYPES: Final = (f"{_OCI}.index.v1+json", f"{_DOCKER}.distribution.manifest.list.v2+json")
"""Media types of indexes."""

MANIFEST_ACCEPT: Final = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
"""What a registry is asked for."""

_CONFIG_TYPES: Final = (f"{_OCI}.config.v1+json", f"{_DOCKER}.container.image.v1+json")

_LAYER_TYPES: Final = {
    f"{_DOCKER}.image.rootfs.diff.tar": MediaType.TAR,
    f"{_DOCKER}.image.rootfs.diff.tar.gzip": MediaType.TAR_GZIP,
    f"{_DOCKER}.image.rootfs.diff.tar.zstd": MediaType.TAR_ZSTD,
    **{media_type.value: media_type for media_type in MediaType},
}

_ATTESTATION: Final = "vnd.docker.reference.type"
"""Annotation of what an index says about its images."""

_MediaTypeText = Annotated[str, StringConstraints(max_length=255, pattern=r"^[ -~]*$")]
_Word = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")]
_OciDigest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Wire(WireObject):
    model_config = ConfigDict(strict=True)


class _Platform(_Wire):
    os: _Word = ""
    architecture: _Word = ""
    variant: _Word = ""

    def checked(self) -> Platform:
        return Platform(self.os, self.architecture, self.variant)


class _Descriptor(_Wire):
    media_type: _MediaTypeText = Field(alias="mediaType")
    digest: _OciDigest
    size: Annotated[int, Field(ge=0, le=_SIZE_LIMIT)]
    urls: list[str] = Field(default_factory=list)
    platform: _Platform | None = None
    artifact_type: _MediaTypeText | None = Field(alias="artifactType", default=None)
    annotations: dict[str, str | None] = Field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether an entry of an index is an image, or an index of some; it may be anything (image-index.md)."""
        return (
            self.media_type in (*MANIFEST_TYPES, *INDEX_TYPES)
            # What descriptors of images say here is the type of the configuration.
            and self.artifact_type in (None, *_CONFIG_TYPES)
            # BuildKit's attestations are listed like images, for a platform that does not exist.
            and _ATTESTATION not in self.annotations
            and (self.platform is None or self.platform.os != "unknown")
        )


class _Manifest(_Wire):
    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: _MediaTypeText | None = Field(alias="mediaType", default=None)
    config: _Descriptor
    layers: Annotated[list[_Descriptor], Field(max_length=_LAYERS)] = Field(default_factory=list)


class _Index(_Wire):
    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: _MediaTypeText | None = Field(alias="mediaType", default=None)
    manifests: Annotated[list[_Descriptor], Field(max_length=_LAYERS)] = Field(default_factory=list)


class _RootFs(_Wire):
    type: Literal["layers"]
    diff_ids: Annotated[list[_OciDigest], Field(max_length=_LAYERS)] = Field(default_factory=list)


class _Running(_Wire):
    labels: dict[str, str | None] = Field(alias="Labels", default_factory=dict)


class _Config(_Platform):
    """What the converter itself reads of a configuration."""

    rootfs: _RootFs
    config: _Running = Field(default_factory=_Running)
    history: list[dict[str, Any] | None] = Field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawManifest:
    """A manifest or an index as the registry has it, its digest verified."""

    content: bytes
    """The bytes, which the digest is of."""
    media_type: str
    """What it is."""
    digest: Digest
    """SHA-256 of the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One image of an index, or a further index of images."""

    digest: Digest
    """SHA-256 of the image's manifest."""
    size: int
    """Size of the manifest, in bytes."""
    platform: Platform | None
    """What it is for; None where the index does not say."""
    is_index: bool = False
    """Whether it is a further index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestContent:
    """What the manifest of one image names."""

    config_digest: Digest
    """SHA-256 of the configuration."""
    config_size: int
    """Size of the configuration, in bytes."""
    layers: tuple[tuple[Digest, int, MediaType], ...]
    """Digest, size in bytes and form of each layer archive, base first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLayer:
    """A layer of an image."""

    digest: Digest
    """SHA-256 of the archive as the registry has it."""
    diff_id: Digest
    """SHA-256 of the uncompressed tar stream, as the image's configuration has it; it is not verified here."""
    size: int
    """Size of the archive, in bytes."""
    media_type: MediaType
    """Form of the archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image for one platform."""

    reference: ImageReference
    """Where it is; the scheme is the one that the registry was spoken to with."""
    platform: Platform
    """What it is for."""
    manifest: bytes
    """The manifest as the registry has it."""
    manifest_media_type: str
    """Its media type."""
    manifest_digest: Digest
    """SHA-256 of the manifest."""
    config: bytes
    """The configuration as the registry has it."""
    config_digest: Digest
    """SHA-256 of the configuration."""
    layers: tuple[ImageLayer, ...]
    """The layers, base first."""


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
    descriptors = _validate(_Index, _document(content, where), where).manifests
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


def choosable(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return those that name their platforms, or all where none does.

    What names no platform beside others that do cannot be chosen, and is an artefact as often as an image.
    """
    return tuple(candidate for candidate in candidates if candidate.platform is not None) or tuple(candidates)


def read_manifest(content: bytes, *, where: str) -> ManifestContent:
    """Return what an image's manifest names.

    Raises
    ------
    InvalidAnswerError
        It is not of its form.
    UnsupportedImageError
        It is not a container image, or has layers that the registry does not hold.
    """
    manifest = _validate(_Manifest, _document(content, where), where)
    if manifest.config.media_type not in _CONFIG_TYPES:
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


def _layer(descriptor: _Descriptor, where: str) -> tuple[Digest, int, MediaType]:
    foreign = "foreign" in descriptor.media_type or "nondistributable" in descriptor.media_type
    if foreign or descriptor.urls:
        raise UnsupportedImageError(
            f"{where} is a foreign layer, which the registry does not hold: ask those who made the image for one "
            "without foreign layers"
        )
    if descriptor.media_type not in _LAYER_TYPES:
        raise UnsupportedImageError(
            f"{where} is {descriptor.media_type!r}; tar, tar+gzip and tar+zstd can be converted: "
            "make the image anew as one of them"
        )
    return Digest.from_oci(descriptor.digest), descriptor.size, _LAYER_TYPES[descriptor.media_type]


def read_config(content: bytes, *, where: str) -> tuple[Platform, tuple[Digest, ...]]:
    """Return the platform and the diff IDs, base first, of an image's configuration.

    Raises
    ------
    InvalidAnswerError
        It is not of its form.
    """
    config = _validate(_Config, _document(content, where), where)
    if not config.os or not config.architecture:
        raise InvalidAnswerError(f"{where} does not say what platform the image is for: push the image anew")
    return config.checked(), tuple(map(Digest.from_oci, config.rootfs.diff_ids))


def join_layers(
    layers: tuple[tuple[Digest, int, MediaType], ...], diff_ids: tuple[Digest, ...], *, where: str
) -> tuple[ImageLayer, ...]:
    """Bring together what the manifest and the configuration say about each layer.

    Raises
    ------
    DigestMismatchError
        They do not have the same number of layers, or one archive would be two layers.
    """
    if len(layers) != len(diff_ids):
        raise DigestMismatchError(
            f"{where} has {len(layers)} layers and its configuration {len(diff_ids)} diff IDs: push the image anew"
        )
    known: dict[Digest, tuple[Digest, int]] = {}
    for (digest, size, _), diff_id in zip(layers, diff_ids, strict=True):
        if known.setdefault(digest, (diff_id, size)) != (diff_id, size):
            raise DigestMismatchError(
                f"{where} gives the layer {digest.oci} two sizes or two diff IDs: push the image anew"
            )
    return tuple(
        ImageLayer(digest=digest, diff_id=diff_id, size=size, media_type=media_type)
        for (digest, size, media_type), diff_id in zip(layers, diff_ids, strict=True)
    )
