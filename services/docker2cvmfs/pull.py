"""Layer archives as files: verified, and not fetched again."""

import asyncio
import hashlib
import os
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final

from services.common.archive.model import MediaType
from services.docker2cvmfs.errors import OutputError
from services.docker2cvmfs.progress import LayerProgress
from services.docker2cvmfs.publish import layers_of
from services.docker2cvmfs.registry.client import RegistryClient
from services.docker2cvmfs.registry.manifests import Image, ImageLayer

__all__ = ["archive_name", "pull"]

_PARALLEL: Final = 4

_SUFFIXES: Final = {MediaType.TAR: "tar", MediaType.TAR_GZIP: "tar.gz", MediaType.TAR_ZSTD: "tar.zst"}


def archive_name(layer: ImageLayer) -> str:
    """Name of the file of a layer."""
    return f"{layer.digest}.{_SUFFIXES[layer.media_type]}"


async def pull(
    images: Iterable[Image], directory: Path, *, registry: RegistryClient, progress: LayerProgress
) -> list[Path]:
    """Write every layer of the images to a directory; files that are there and whole stay as they are.

    A file appears when it is whole and verified. A download that is interrupted is resumed within a call; layers that
    a killed call has finished are not fetched by the next.

    Raises
    ------
    RegistryError
        A layer could not be downloaded.
    OutputError
        A file could not be written.
    """
    places = asyncio.Semaphore(_PARALLEL)

    async def one(image: Image, layer: ImageLayer) -> Path:
        async with places:
            path = directory / archive_name(layer)
            if await asyncio.to_thread(_is_whole, path, layer):
                progress.reached(layer.digest, "already there")
                return path
            progress.reached(layer.digest, "downloading")
            await _download(image, layer, path, registry=registry, progress=progress)
            progress.reached(layer.digest, "downloaded")
            return path

    layers = layers_of(images)
    for _, layer in layers.values():
        progress.add(layer)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(image, layer)) for image, layer in layers.values()]
    except OSError as error:
        raise OutputError(f"cannot make {directory}: {error.strerror}") from None
    except BaseExceptionGroup as failures:
        failure = failures.exceptions[0]
        if isinstance(failure, OSError):
            raise OutputError(f"cannot write to {directory}: {failure}") from None
        raise failure from None
    return [task.result() for task in tasks]


async def _download(
    image: Image, layer: ImageLayer, path: Path, *, registry: RegistryClient, progress: LayerProgress
) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("xb", buffering=0) as file:
            async with aclosing(registry.blob(image.reference, layer.digest, layer.size)) as chunks:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
                    progress.transferred(layer.digest, len(chunk))
            await asyncio.to_thread(os.fsync, file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _is_whole(path: Path, layer: ImageLayer) -> bool:
    """Whether the file is the layer (blocking)."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == layer.size and (
                hashlib.file_digest(file, "sha256").hexdigest() == layer.digest
            )
    except FileNotFoundError:
        return False
