"""What happens, as lines of JSON in a file, as DUCC writes them with `--notification-file`.

Every line is an object of `action`, `image`, `id`, `status`, `error`, `size_bytes`, `time_elapsed_s` and `time`; those
that an action has no use for are left out. Of DUCC's actions these are here: `start_ducc` and `end_ducc` around a run
of the converter, `start_layer_conversion` when an image has been asked for, `publish_layer` for each layer of a
published image, `end_layer_conversion` when it is published or has failed. All lines of a version of an image have one
`id`.
"""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import aiofiles
import structlog

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.publisher_api import ImageAnswer
from services.common.threads import to_end
from services.common.times import text_of

__all__ = ["Notifications"]

_log = structlog.get_logger(__name__)

_SPACE: Final = uuid.UUID("5a2b7b0e-6f6e-4c3f-9d5b-0b8f3f0d6a11")
"""Names identities of images."""


class Notifications:
    """Writes the file, every line whole. That it cannot be written is logged, and ends nothing.

    Parameters
    ----------
    path
        The file, which is made where it is missing and never shortened; None writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._run = str(uuid.uuid4())

    async def __aenter__(self) -> Self:
        await self._write([{"action": "start_ducc", "id": self._run}])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_failure: object) -> None:
        await self._write([{"action": "end_ducc", "id": self._run, "status": "ok" if kind is None else "error"}])

    async def asked(self, name: ImageName, digest: Digest) -> None:
        """Tell that an image has been asked for."""
        await self._write([{"action": "start_layer_conversion", "image": name, "id": _identity(name, digest)}])

    async def published(self, image: ImageAnswer, digest: Digest) -> None:
        """Tell that an image is published, and which layers it has."""
        identity = _identity(image.name, digest)
        lines: list[Mapping[str, object]] = [
            {
                "action": "publish_layer",
                "image": image.name,
                "id": identity,
                "status": "ok",
                "layer_digest": layer.digest,
                "size_bytes": layer.size,
            }
            for layer in image.layers
        ]
        steps = (image.steps.resolving, image.steps.fetching, image.steps.publishing)
        lines.append(
            {
                "action": "end_layer_conversion",
                "image": image.name,
                "id": identity,
                "status": "ok",
                "size_bytes": sum(layer.size for layer in image.layers),
                "time_elapsed_s": round(sum(filter(None, steps)), 3),
            }
        )
        await self._write(lines)

    async def failed(self, name: ImageName, digest: Digest | None, reason: str) -> None:
        """Tell that an image could not be published."""
        line = {"action": "end_layer_conversion", "image": name, "status": "error", "error": reason}
        await self._write([line if digest is None else {**line, "id": _identity(name, digest)}])

    async def _write(self, lines: Sequence[Mapping[str, object]]) -> None:
        if self._path is None:
            return
        time = text_of(datetime.now(UTC))
        text = "".join(json.dumps({**line, "time": time}) + "\n" for line in lines)
        try:
            await to_end(_append(self._path, text.encode()))
        except OSError as error:
            _log.error("the notification file cannot be written", path=str(self._path), reason=error.strerror)


async def _append(path: Path, content: bytes) -> None:
    async with aiofiles.open(path, "ab", buffering=0, opener=_open) as file:
        await file.write(content)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o644)


def _identity(name: str, digest: Digest) -> str:
    return str(uuid.uuid5(_SPACE, f"{name}@{digest.oci}"))
