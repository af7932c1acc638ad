"""Images as a registry's client reads them, for tests of what is made of them."""

import hashlib
import json
from typing import Any, Final

from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.registry.images import Image, ImageLayer
from services.registry.platform import Platform
from services.registry.reference import ImageReference

__all__ = ["ARM64", "CONFIG", "original_image"]

CONFIG: Final[dict[str, Any]] = {
    "architecture": "arm64",
    "os": "linux",
    "variant": "v8",
    "created": "2024-02-03T04:05:06.789Z",
    "author": "somebody",
    "config": {
        "User": "12:34",
        "Env": ["PATH=/bin", "KEY=\u00fc"],
        "Cmd": ["-c"],
        "Entrypoint": ["/bin/sh"],
        "WorkingDir": "/srv",
        "Labels": {"org.example.label": "kept"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5},
        "StopSignal": "SIGUSR1",
        "Shell": ["/bin/ash", "-ec"],
        "OnBuild": ["RUN true"],
        "ArgsEscaped": True,
    },
    "history": [{"created_by": "one"}, {"created_by": "two", "empty_layer": True}],
    "moby.buildkit.cache.v0": "of the layers",
}
"""A configuration with something in every part."""

ARM64: Final = Platform("linux", "arm64", "v8")


def original_image(count: int = 2, *, platform: Platform = ARM64, **changes: Any) -> Image:  # noqa: ANN401 - parts of a JSON document
    """Return an image of so many layers; `changes` replace parts of its configuration."""
    layers = tuple(
        ImageLayer(
            digest=Digest(hashlib.sha256(b"%d" % number).hexdigest()),
            diff_id=Digest("d" * 64),
            size=number,
            media_type=MediaType.TAR_GZIP,
        )
        for number in range(count)
    )
    return Image(
        reference=ImageReference.parse("ubuntu"),
        platform=platform,
        manifest=b"{}",
        manifest_media_type="application/vnd.oci.image.manifest.v1+json",
        manifest_digest=Digest("a" * 64),
        config=json.dumps({**CONFIG, "rootfs": {"type": "layers", "diff_ids": []}, **changes}).encode(),
        config_digest=Digest("c" * 64),
        layers=layers,
    )
