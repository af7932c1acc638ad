"""OCI images on disk, made of given layers (OCI image layout specification)."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["write_image"]

_PREFIX: Final = "application/vnd.oci.image."


def write_image(directory: Path, layers: Sequence[bytes], *, tag: str = "latest") -> None:
    """Write an image layout that holds one image of uncompressed layers, base first."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media_type: str) -> dict[str, str | int]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    descriptors = [blob(layer, f"{_PREFIX}layer.v1.tar") for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [descriptor["digest"] for descriptor in descriptors]},
        "history": [{"created_by": "test"} for _ in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_PREFIX}manifest.v1+json",
        "config": blob(json.dumps(config).encode(), f"{_PREFIX}config.v1+json"),
        "layers": descriptors,
    }
    reference = blob(json.dumps(manifest).encode(), f"{_PREFIX}manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [reference | {"annotations": {"org.opencontainers.image.ref.name": tag}}]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
