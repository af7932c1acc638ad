"""An image of more than a gigabyte, in a registry."""

import asyncio
import hashlib
import io
import json
import secrets
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from harness.commands import run
from harness.registry import Registry
from services.common.archive.model import MediaType

__all__ = ["image_layers", "large_image"]

_LAYERS: Final = 5
_LAYER: Final = 240_000_000
"""Bytes of a layer; they cannot be compressed, as those of a compressed layer cannot."""
_BLOCK: Final = 1 << 20
_OCI: Final = "application/vnd.oci.image"


@asynccontextmanager
async def large_image(directory: Path) -> AsyncIterator[str]:
    """Write an image of five layers, and have it in a registry for as long as the context lasts.

    Parameters
    ----------
    directory
        Existing directory for both.

    Returns
    -------
    AsyncIterator
        Of the image's name.
    """
    registry = Registry(directory / "registry")
    await registry.start()
    try:
        await asyncio.to_thread(_write_image, directory / "image")
        image = f"{registry.address}/large:1"
        await run(
            *("skopeo", "copy", "--quiet", "--dest-tls-verify=false", "--preserve-digests"),
            *(f"oci:{directory / 'image'}:1", f"docker://{image}"),
        )
        yield image
    finally:
        await registry.close()


def image_layers(directory: Path) -> list[Path]:
    """Return the archives of the layers of the image that has been written to a directory."""
    return [path for path in (directory / "image/blobs/sha256").iterdir() if path.stat().st_size > _BLOCK]


def _write_image(directory: Path) -> None:
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    layers = [_write_layer(blobs, number) for number in range(_LAYERS)]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _write_blob(blobs, config, f"{_OCI}.config.v1+json"),
        "layers": layers,
    }
    top = _write_blob(blobs, manifest, f"{_OCI}.manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [{**top, "annotations": {"org.opencontainers.image.ref.name": "1"}}]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _write_blob(blobs: Path, document: dict[str, Any], media_type: str) -> dict[str, Any]:
    content = json.dumps(document).encode()
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _write_layer(blobs: Path, number: int) -> dict[str, Any]:
    partial = blobs / f"layer-{number}"
    block = secrets.token_bytes(_BLOCK)
    with tarfile.open(partial, "w") as archive:
        for file in range(_LAYER // _BLOCK):
            member = tarfile.TarInfo(f"layer-{number}/file-{file}")
            member.size = _BLOCK
            archive.addfile(member, io.BytesIO(block))
    with partial.open("rb") as whole:
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
    size = partial.stat().st_size
    partial.rename(blobs / digest)
    return {"mediaType": MediaType.TAR, "digest": f"sha256:{digest}", "size": size}
