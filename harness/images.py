"""Docker archives (`docker load`) made from layer tars, without an engine."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["write_image"]

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""What Docker calls the machines that the kernel names so."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_image(destination: Path, *, name: str, layers: Sequence[Path], config: dict[str, Any] | None = None) -> None:
    """Write a docker archive.

    Parameters
    ----------
    destination
        The archive.
    name
        `REPOSITORY:TAG` of the image.
    layers
        Uncompressed layer tars, base first.
    config
        How containers run: the `config` object of an image's configuration, such as `{"Cmd": ["bash"]}`.
    """
    digests = [_sha256(layer) for layer in layers]
    image = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created_by": "harness"} for _ in digests],
    }
    configuration = json.dumps(image).encode()
    configuration_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": configuration_name, "RepoTags": [name], "Layers": [f"{digest}.tar" for digest in digests]}]
    with tarfile.open(destination, "w") as archive:
        for digest, layer in zip(digests, layers, strict=True):
            archive.add(layer, f"{digest}.tar")
        _add(archive, configuration_name, configuration)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
