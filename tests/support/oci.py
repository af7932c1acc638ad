"""OCI images on disk and in registries, made of given layers (OCI image layout specification)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from services.registry.client import RegistryClient
from services.registry.reference import ImageReference

__all__ = ["push_image_of_blob", "write_image"]

_PREFIX: Final = "application/vnd.oci.image."
_LAYER: Final = f"{_PREFIX}layer.v1.tar"
_MANIFEST: Final = f"{_PREFIX}manifest.v1+json"
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def write_image(directory: Path, layers: Sequence[bytes], *, tag: str = "latest") -> None:
    """Write an image layout that holds one image of uncompressed layers, base first."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    config, manifest = _documents([_describe(_LAYER, layer) for layer in layers])
    top = _describe(_MANIFEST, manifest)
    for content in (*layers, config, manifest):
        (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
    index = {"schemaVersion": 2, "manifests": [top | {"annotations": {"org.opencontainers.image.ref.name": tag}}]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


async def push_image_of_blob(
    client: RegistryClient, reference: ImageReference, digest: str, size: int, *, created: str | None = None
) -> None:
    """Push an image of one uncompressed layer, which the repository has; `created` is when it says it was made."""
    layers = [{"mediaType": _LAYER, "digest": f"sha256:{digest}", "size": size}]
    config, manifest = _documents(layers, {} if created is None else {"created": created})
    await client.push_blob(reference, config)
    await client.push_manifest(reference, manifest, _MANIFEST)


def _describe(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def _documents(layers: Sequence[dict[str, Any]], more: Mapping[str, Any] = _NOTHING) -> tuple[bytes, bytes]:
    """Make configuration and manifest; the configuration has more in it if it is to."""
    config = {
        **more,
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        "history": [{"created_by": "test"} for _ in layers],
    }
    content = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _describe(f"{_PREFIX}config.v1+json", content),
        "layers": layers,
    }
    return content, json.dumps(manifest).encode()
