"""Layer archives as files: verified, resumed where a call was killed, and not fetched again."""

import asyncio
import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from aiofiles.threadpool.binary import AsyncFileIO

from services.common.archive.model import MediaType
from services.common.hashed_file import HashedFile
from services.common.threads import run_to_end, to_end
from services.common.together import all_of
from services.docker2cvmfs.errors import OutputError
from services.docker2cvmfs.partial_file import partial_file
from services.docker2cvmfs.progress import LayerProgress
from services.docker2cvmfs.publish import layers_of
from services.registry.blobs import batched, mismatch
from services.registry.client import RegistryClient
from services.registry.errors import DigestMismatchError
from services.registry.images import Image, ImageLayer

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

    A file appears when it is whole and verified. What has arrived of one is kept hidden beside it, as `.NAME.part`, and
    the next call goes on with it, however this one ended.

    Raises
    ------
    RegistryError
        A layer could not be downloaded.
    OutputError
        A file could not be written.
    """
    places = asyncio.Semaphore(_PARALLEL)

    async def one(download: _Download) -> Path:
        async with places:
            return await download.run()

    layers = layers_of(images)
    for _, layer in layers.values():
        progress.add(layer)
    with ThreadPoolExecutor(_PARALLEL, "pull") as threads:
        downloads = [
            _Download(
                image=image,
                layer=layer,
                path=directory / archive_name(layer),
                registry=registry,
                progress=progress,
                threads=threads,
            )
            for image, layer in layers.values()
        ]
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {directory}: {error.strerror}") from None
        try:
            return await all_of(one(download) for download in downloads)
        except OSError as error:
            raise OutputError(f"cannot write to {directory}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Download:
    """One layer on its way into a file."""

    image: Image
    layer: ImageLayer
    path: Path
    registry: RegistryClient
    progress: LayerProgress
    threads: Executor

    async def run(self) -> Path:
        digest = self.layer.digest
        if await run_to_end(self.threads, partial(_is_whole, self.path, self.layer)):
            self.progress.reached(digest, "already there")
            return self.path
        with partial_file(self.path) as file:
            await run_to_end(self.threads, file.take_over)
            if file.size:
                self.progress.transferred(digest, file.size)
                self.progress.reached(digest, f"resuming after {file.size:,} bytes")
                try:
                    await self._complete(file)
                except DigestMismatchError:
                    # An earlier call's machine may have failed while it wrote.
                    self.progress.transferred(digest, -file.size)
                    await run_to_end(self.threads, file.start_over)
                else:
                    return self.path
            self.progress.reached(digest, "downloading")
            try:
                await self._complete(file)
            except DigestMismatchError:
                await run_to_end(self.threads, file.start_over)
                raise
        return self.path

    async def _complete(self, file: HashedFile) -> None:
        """Receive what is missing, verify the whole and give it its name.

        Raises
        ------
        DigestMismatchError
            The whole is not the layer.
        """
        reference, layer = self.image.reference, self.layer
        if file.size > layer.size:
            raise mismatch(reference, layer.digest, f"has {file.size} bytes in {file.path}")
        writer = AsyncFileIO(file, None, self.threads)
        blob = self.registry.unverified_blob(reference, layer.digest, layer.size, start=file.size)
        async with aclosing(batched(blob)) as batches:
            async for batch in batches:
                await to_end(writer.write(batch))
                self.progress.transferred(layer.digest, len(batch))
        if file.digest != layer.digest:
            raise mismatch(reference, layer.digest, f"has the digest sha256:{file.digest}")
        await run_to_end(self.threads, partial(file.publish, self.path))
        self.progress.reached(layer.digest, "downloaded")


def _is_whole(path: Path, layer: ImageLayer) -> bool:
    """Whether the file is the layer (blocking)."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == layer.size and (
                hashlib.file_digest(file, "sha256").hexdigest() == layer.digest
            )
    except FileNotFoundError:
        return False
