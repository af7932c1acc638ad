"""What the documents of an image say, platform by platform: what its outputs are made of.

Sources: OCI image specification 1.1 (manifest.md, config.md), Docker's image manifest version 2, schema 2. The bytes
were checked when they came from a registry; what lies in a repository may have been written by others, so that which is
used here is checked again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.common.digest import Digest
from services.repository.errors import ImageRefusedError
from services.repository.images import MULTIARCH_DIRECTORY, ImageDocuments, is_platform

__all__ = ["PlatformImage", "PlatformLayer", "platform_images"]

_LAYERS: Final = 1000
"""Most layers of an image."""

_OciDigest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformLayer:
    """A layer of an image for one platform."""

    digest: Digest
    """SHA-256 of the archive."""
    diff_id: Digest
    """SHA-256 of the uncompressed archive."""
    size: int
    """Size of the archive, in bytes."""
    media_type: str
    """As the manifest has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """An image for one platform."""

    platform: str
    """`OS/ARCHITECTURE[/VARIANT]`."""
    machine: str
    """`ARCHITECTURE[:VARIANT]`, the name of a directory below `.multiarch`."""
    directory: str
    """Where its documents are, relative to `.metadata`."""
    config: bytes
    """The configuration's original bytes."""
    config_digest: Digest
    """SHA-256 of the configuration: the image's ID."""
    manifest: bytes
    """The manifest's original bytes."""
    manifest_digest: Digest
    """SHA-256 of the manifest."""
    index: bytes | None
    """The original bytes of the index that names the manifest; None where no index was asked for."""
    created: str | None
    """When it was made, as the configuration says; whatever text that is."""
    layers: tuple[PlatformLayer, ...]
    """Base first; one that an image has twice is here twice."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)


class _Descriptor(_Wire):
    media_type: Annotated[str, Field(alias="mediaType", max_length=255)]
    digest: _OciDigest
    size: Annotated[int, Field(ge=0)]


class _Manifest(_Wire):
    schema_version: Annotated[Literal[2], Field(alias="schemaVersion")]
    config: _Descriptor
    # Go writes null for an empty list.
    layers: Annotated[list[_Descriptor] | None, Field(max_length=_LAYERS)] = None


class _RootFs(_Wire):
    diff_ids: Annotated[list[_OciDigest] | None, Field(max_length=_LAYERS)] = None


class _Config(_Wire):
    os: _Word
    architecture: _Word
    variant: _Word = ""
    created: Annotated[str, Field(max_length=255)] | None = None
    rootfs: _RootFs


_Document = TypeVar("_Document", bound=BaseModel)


def platform_images(documents: ImageDocuments) -> tuple[PlatformImage, ...]:
    """Read the documents of an image.

    Returns
    -------
    tuple
        One for each platform, that which has the image's name first.

    Raises
    ------
    ImageRefusedError
        A document is missing, or is not what it must be; the text says which.
    """
    own = documents.name.path
    index = documents.files.get(f"{own}/index.json")
    others = [directory for directory in documents.directories if directory != own]
    return tuple(_read(documents.files, directory, index) for directory in (own, *others))


def _read(files: Mapping[str, bytes], directory: str, index: bytes | None) -> PlatformImage:
    manifest_path, config_path = f"{directory}/manifest.json", f"{directory}/config.json"
    for path in (manifest_path, config_path):
        if path not in files:
            raise ImageRefusedError(f"{path} is missing among the documents of the image: publish it again")
    manifest = _parse(_Manifest, files[manifest_path], manifest_path)
    config = _parse(_Config, files[config_path], config_path)
    config_digest = Digest(hashlib.sha256(files[config_path]).hexdigest())
    if manifest.config.digest != config_digest.oci:
        raise ImageRefusedError(
            f"{config_path} is {config_digest.oci}, but {manifest_path} names {manifest.config.digest}: "
            "publish it again"
        )
    machine = ":".join(filter(None, (config.architecture, config.variant)))
    if directory.startswith(f"{MULTIARCH_DIRECTORY}/"):
        machine = directory.split("/")[1]
    if not is_platform(machine):
        raise ImageRefusedError(f"{config_path} does not say which processor the image is for: build it anew")
    return PlatformImage(
        platform="/".join(filter(None, (config.os or "linux", config.architecture, config.variant))),
        machine=machine,
        directory=directory,
        config=files[config_path],
        config_digest=config_digest,
        manifest=files[manifest_path],
        manifest_digest=Digest(hashlib.sha256(files[manifest_path]).hexdigest()),
        index=index,
        created=config.created,
        layers=_layers(manifest, config, manifest_path),
    )


def _layers(manifest: _Manifest, config: _Config, path: str) -> tuple[PlatformLayer, ...]:
    layers, diff_ids = manifest.layers or [], config.rootfs.diff_ids or []
    if len(layers) != len(diff_ids):
        raise ImageRefusedError(
            f"{path} has {len(layers)} layers and the configuration {len(diff_ids)} diff IDs: build the image anew"
        )
    return tuple(
        PlatformLayer(
            digest=Digest.from_oci(layer.digest),
            diff_id=Digest.from_oci(diff_id),
            size=layer.size,
            media_type=layer.media_type,
        )
        for layer, diff_id in zip(layers, diff_ids, strict=True)
    )


def _parse(model: type[_Document], content: bytes, path: str) -> _Document:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise ImageRefusedError(f"{path}: {place}: {first['msg']}") from None
