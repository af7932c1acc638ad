"""Images of registries, and what their indexes, manifests and configurations say of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.registry.errors import DigestMismatchError
from services.registry.platform import Platform
from services.registry.reference import ImageReference

__all__ = [
    "Candidate",
    "Image",
    "ImageLayer",
    "ManifestContent",
    "ManifestHead",
    "RawManifest",
    "choosable",
    "join_layers",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestHead:
    """What a reference names, without its content."""

    digest: Digest
    """SHA-256 of the manifest or index."""
    media_type: str
    """What it is."""


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


def choosable(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return those that name their platforms, or all where none does.

    What names no platform beside others that do cannot be chosen, and is an artefact as often as an image.
    """
    return tuple(candidate for candidate in candidates if candidate.platform is not None) or tuple(candidates)


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
