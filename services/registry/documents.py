"""The documents of images as registries hold them.

Sources: OCI image specification 1.1 (manifest.md, image-index.md, config.md) and Docker's image manifest version 2,
schema 2.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from services.common.archive.model import MediaType
from services.registry.platform import Platform
from services.registry.wire import WireObject

__all__ = [
    "CONFIG_TYPES",
    "INDEX_TYPES",
    "LAYER_TYPES",
    "MANIFEST_ACCEPT",
    "MANIFEST_TYPES",
    "ConfigWire",
    "DescriptorWire",
    "IndexWire",
    "ManifestWire",
]

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

CONFIG_TYPES: Final = (f"{_OCI}.config.v1+json", f"{_DOCKER}.container.image.v1+json")
"""Media types of configurations."""

LAYER_TYPES: Final = {
    f"{_DOCKER}.image.rootfs.diff.tar": MediaType.TAR,
    f"{_DOCKER}.image.rootfs.diff.tar.gzip": MediaType.TAR_GZIP,
    f"{_DOCKER}.image.rootfs.diff.tar.zstd": MediaType.TAR_ZSTD,
    **{media_type.value: media_type for media_type in MediaType},
}
"""Forms of layer archives by the media types that name them."""

_ATTESTATION: Final = "vnd.docker.reference.type"
"""Annotation of what an index says about its images."""

_MediaTypeText = Annotated[str, StringConstraints(max_length=255, pattern=r"^[ -~]*$")]
_Word = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")]
_OciDigest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Wire(WireObject):
    model_config = ConfigDict(strict=True)


class PlatformWire(_Wire):
    """What an image is for, as far as it says."""

    os: _Word = ""
    architecture: _Word = ""
    variant: _Word = ""

    def checked(self) -> Platform:
        """Return it as a type that cannot hold a bad value."""
        return Platform(self.os, self.architecture, self.variant)


class DescriptorWire(_Wire):
    """What names another document, or a layer."""

    media_type: _MediaTypeText = Field(alias="mediaType")
    digest: _OciDigest
    size: Annotated[int, Field(ge=0, le=_SIZE_LIMIT)]
    urls: list[str] = Field(default_factory=list)
    platform: PlatformWire | None = None
    artifact_type: _MediaTypeText | None = Field(alias="artifactType", default=None)
    annotations: dict[str, str | None] = Field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether an entry of an index is an image, or an index of some; it may be anything (image-index.md)."""
        return (
            self.media_type in (*MANIFEST_TYPES, *INDEX_TYPES)
            # What descriptors of images say here is the type of the configuration.
            and self.artifact_type in (None, *CONFIG_TYPES)
            # BuildKit's attestations are listed like images, for a platform that does not exist.
            and _ATTESTATION not in self.annotations
            and (self.platform is None or self.platform.os != "unknown")
        )


class ManifestWire(_Wire):
    """The manifest of one image."""

    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: _MediaTypeText | None = Field(alias="mediaType", default=None)
    config: DescriptorWire
    layers: Annotated[list[DescriptorWire], Field(max_length=_LAYERS)] = Field(default_factory=list)


class IndexWire(_Wire):
    """A list of images."""

    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: _MediaTypeText | None = Field(alias="mediaType", default=None)
    manifests: Annotated[list[DescriptorWire], Field(max_length=_LAYERS)] = Field(default_factory=list)


class _RootFs(_Wire):
    type: Literal["layers"]
    diff_ids: Annotated[list[_OciDigest], Field(max_length=_LAYERS)] = Field(default_factory=list)


class _Running(_Wire):
    labels: dict[str, str | None] = Field(alias="Labels", default_factory=dict)


class ConfigWire(PlatformWire):
    """What the converter itself reads of a configuration."""

    rootfs: _RootFs
    config: _Running = Field(default_factory=_Running)
    history: list[dict[str, Any] | None] = Field(default_factory=list)
