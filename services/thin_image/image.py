"""Thin images of ordinary ones: one layer that holds the descriptor, and the original's whole configuration.

Everything here follows from the original alone, so that the same image gives the same digest anywhere: times are the
original's or the epoch, JSON is sorted, and the layer is not compressed, since compressors differ between versions.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.common.archive.model import MediaType
from services.common.descriptor import DESCRIPTOR_NAME, LayerUrl, ThinDescriptor, ThinLayer
from services.common.digest import Digest
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.registry.documents import INDEX_TYPES, MANIFEST_TYPES
from services.registry.errors import UnsupportedImageError
from services.registry.images import Image

__all__ = [
    "INDEX_TYPE",
    "LABEL_DIGEST",
    "LABEL_ORIGIN",
    "LABEL_REPOSITORY",
    "MANIFEST_TYPE",
    "Blob",
    "ThinImage",
    "build_index",
    "build_thin_image",
    "describe",
]

MANIFEST_TYPE: Final = MANIFEST_TYPES[0]
"""Thin images have OCI manifests, in which layers need not be compressed."""

INDEX_TYPE: Final = INDEX_TYPES[0]
"""And OCI indexes."""

_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"

LABEL_ORIGIN: Final = "org.cvmfs.thin.origin"
"""Label: the image that it was made from, as in the descriptor."""

LABEL_DIGEST: Final = "org.cvmfs.thin.origin-digest"
"""Label: `sha256:` digest of that image's manifest."""

LABEL_REPOSITORY: Final = "org.cvmfs.thin.repository"
"""Label: the repository that has its layers."""

_OF_THE_LAYERS: Final = frozenset({"rootfs", "history", "moby.buildkit.cache.v0"})
"""What a configuration says about the original's layers and is not true of the thin image's."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with their digest."""

    content: bytes

    @property
    def digest(self) -> Digest:
        """SHA-256 of the bytes."""
        return Digest(hashlib.sha256(self.content).hexdigest())

    def described(self, media_type: str) -> dict[str, Any]:
        """Describe it as manifests and indexes do."""
        return {"mediaType": media_type, "digest": self.digest.oci, "size": len(self.content)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinImage:
    """A thin image for one platform."""

    original: Image
    """What it was made from."""
    descriptor: ThinDescriptor
    """Where its layers are."""
    layer: Blob
    """Its one layer, an uncompressed tar: digest and diff ID are the same."""
    config: Blob
    """Its configuration."""
    manifest: Blob
    """Its OCI manifest."""


def describe(image: Image, repository: RepositoryName, layout: LayerLayout) -> ThinDescriptor:
    """Return the descriptor of an image whose layers are in a repository.

    Raises
    ------
    UnsupportedImageError
        The image is thin itself: in its layers is nothing to run. Or it has no layers.
    InvalidValueError
        The image has more layers than an overlay can stack.
    """
    labels = (json.loads(image.config).get("config") or {}).get("Labels") or {}
    if labels.get(LABEL_REPOSITORY) is not None:
        raise UnsupportedImageError(
            f"{image.reference.name} is a thin image already, with its layers in {labels[LABEL_REPOSITORY]!r}: use it "
            f"as it is, or convert what it was made from, {labels.get(LABEL_ORIGIN)!r}"
        )
    if not image.layers:
        raise UnsupportedImageError(
            f"{image.reference.name} has no layers to be had from a repository: use it as it is"
        )
    layers = (
        ThinLayer(digest=layer.digest, url=LayerUrl.of(repository, layer.digest, layout)) for layer in image.layers
    )
    return ThinDescriptor.of(*layers, origin=image.reference.origin)


def build_thin_image(image: Image, repository: RepositoryName, layout: LayerLayout) -> ThinImage:
    """Make the thin image; raises as `describe`."""
    descriptor = describe(image, repository, layout)
    layer = Blob(_layer(descriptor))
    config = Blob(_config(image, repository, layer))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.described(_CONFIG_TYPE),
        "layers": [layer.described(MediaType.TAR)],
    }
    return ThinImage(
        original=image, descriptor=descriptor, layer=layer, config=config, manifest=Blob(_encode(manifest))
    )


def build_index(images: Sequence[ThinImage]) -> Blob:
    """Make the index of the thin images for several platforms."""
    manifests = []
    for image in images:
        config, made_for = json.loads(image.config.content), image.original.platform
        platform = {
            "architecture": made_for.architecture,
            "os": made_for.os,
            **({"variant": made_for.variant} if made_for.variant else {}),
            **{name: config[name] for name in ("os.version", "os.features") if config.get(name)},
        }
        manifests.append({**image.manifest.described(MANIFEST_TYPE), "platform": platform})
    return Blob(_encode({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}))


def _layer(descriptor: ThinDescriptor) -> bytes:
    content = descriptor.encode()
    member = tarfile.TarInfo(DESCRIPTOR_NAME)
    member.size = len(content)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _config(image: Image, repository: RepositoryName, layer: Blob) -> bytes:
    original: dict[str, Any] = json.loads(image.config)
    kept = {name: value for name, value in original.items() if name not in _OF_THE_LAYERS}
    running = dict(kept.get("config") or {})
    running["Labels"] = {
        **(running.get("Labels") or {}),
        LABEL_ORIGIN: image.reference.origin,
        LABEL_DIGEST: image.manifest_digest.oci,
        LABEL_REPOSITORY: repository,
    }
    step = {"created_by": "docker2cvmfs make-thin", "comment": f"thin image of {image.reference.origin}"}
    if original.get("created"):
        step["created"] = original["created"]
    # The original's steps stay to be seen, none of them has a layer here.
    history = [{**(entry or {}), "empty_layer": True} for entry in original.get("history") or ()]
    return _encode(
        {
            **kept,
            "config": running,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest.oci]},
            "history": [*history, step],
        }
    )


def _encode(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # Half of a surrogate pair, which UTF-8 cannot hold, gets its escape back.
    return text.encode(errors="backslashreplace")
