"""The object store that layers are exchanged through."""

from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from pathlib import Path
from typing import Self

from services.common.archive.model import LayerArchive
from services.common.arriving_file import ArrivingFile
from services.common.cores import usable_cores
from services.common.digest import Digest
from services.common.object_store.abandoned import abort_abandoned_uploads
from services.common.object_store.bucket import Bucket
from services.common.object_store.download import Downloader
from services.common.object_store.lookup import check_bucket, list_layers, look_up
from services.common.object_store.model import AnnouncedLayer, StoredLayer
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.stream import StreamUploader
from services.common.object_store.upload import Uploader
from services.common.repository_name import RepositoryName

__all__ = ["ObjectStore"]

_LEAST_THREADS = 4


class ObjectStore:
    """The bucket of layers; a context manager that holds the connections.

    Transient failures are met by repetition for `retry_seconds`, every call ends within a time that follows from the
    settings, and every method raises `ObjectStoreError` (its subclasses say what happened) where it cannot succeed.

    Parameters
    ----------
    settings
        Where the bucket is and how long to wait for it.
    """

    def __init__(self, *, settings: ObjectStoreSettings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            # Threads of its own: packing and unpacking may occupy the event loop's for minutes.
            threads = ThreadPoolExecutor(max(_LEAST_THREADS, usable_cores()), "object-store")
            stack.callback(threads.shutdown)
            self._bucket = await stack.enter_async_context(Bucket.open(self._settings))
            self._uploader = Uploader(bucket=self._bucket, settings=self._settings, threads=threads)
            self._stream_uploader = StreamUploader(bucket=self._bucket, threads=threads)
            self._downloader = Downloader(bucket=self._bucket, limit=self._settings.object_limit, threads=threads)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self._stack.aclose()

    async def check(self) -> None:
        """Raise unless the bucket is there and the user may use it."""
        await check_bucket(self._bucket)

    async def head(self, digest: Digest) -> StoredLayer | None:
        """Describe a layer's object; None if there is none.

        Raises
        ------
        ObjectConflictError
            There is one, whose metadata are not those of a layer.
        """
        return await look_up(self._bucket, digest)

    async def list_layers(self) -> AsyncIterator[StoredLayer]:
        """Iterate over the bucket's layers in the order of their digests.

        A listing shows digest, size and time only. Objects that are no layers are logged and left out.
        """
        async with aclosing(list_layers(self._bucket)) as layers:
            async for layer in layers:
                yield layer

    async def abort_abandoned_uploads(self, age: timedelta) -> int:
        """Abort uploads of layers in parts that were begun longer ago than `age`; return how many there were.

        A program that is killed while it uploads leaves its parts in the bucket, and nothing else removes them.
        """
        return await abort_abandoned_uploads(self._bucket, age)

    async def upload(self, archive: LayerArchive, *, repository: RepositoryName) -> bool:
        """Store a layer archive; one that is there already is left as it is.

        The archive is read from its file as it is sent. Its digest is verified, and the store verifies what arrives.

        Parameters
        ----------
        archive
            The archive.
        repository
            The repository that the layer is for.

        Returns
        -------
        bool
            Whether it was stored now; False if it was there already.

        Raises
        ------
        ChecksumMismatchError
            The file is not the archive that it should be, or was damaged on its way.
        ObjectConflictError
            An object of this digest is there whose size, diff ID or repository is another.
        OSError
            The file cannot be read.
        """
        return await self._uploader.upload(archive, repository)

    async def upload_stream(self, chunks: AsyncIterable[bytes], layer: AnnouncedLayer) -> bool:
        """Store a layer archive while it arrives; one that is there already is left as it is, and nothing is read.

        Memory does not depend on the layer's size nor on how many streams are uploaded at the same time. The digest
        is verified before the object appears, so that a stream which is not the layer, or breaks off, leaves none.

        Parameters
        ----------
        chunks
            The archive's bytes. How long they may take is up to them; what has arrived is sent within the store's
            time-outs. An error that they raise is raised here.
        layer
            What they must be.

        Returns
        -------
        bool
            Whether it was stored now; False if it was there already.

        Raises
        ------
        StreamMismatchError
            What arrived is not the layer.
        ChecksumMismatchError
            What was sent was damaged on its way.
        ObjectConflictError
            An object of this digest is there whose size, diff ID or repository is another.
        """
        return await self._stream_uploader.upload(chunks, layer)

    async def download(self, digest: Digest, destination: Path) -> StoredLayer:
        """Fetch a layer archive into a file, which appears when it is whole and verified.

        It is not brought to the disk: whoever takes one that was there before a loss of power verifies it once more.
        Meanwhile it is in a hidden file beside it, whose name ends in `.part`; one that is left behind by a killed
        process can be removed.

        Parameters
        ----------
        digest
            The layer.
        destination
            The file; one that is there is replaced.

        Raises
        ------
        ObjectMissingError
            There is no such layer.
        ObjectTooLargeError
            It is larger than the setting `object_limit`.
        ChecksumMismatchError
            Its content does not have the digest.
        ObjectConflictError
            Its metadata are not those of a layer, or it was overwritten meanwhile.
        OSError
            The file cannot be written.
        """
        return await self._downloader.download(digest, destination)

    async def receive(self, digest: Digest, file: ArrivingFile) -> StoredLayer:
        """Append a layer archive to a file, resumed where the connection broke.

        Its digest is not verified: that is for whoever reads it meanwhile.

        Parameters
        ----------
        digest
            The layer.
        file
            The file, in which nothing is yet.

        Raises
        ------
        ObjectMissingError, ObjectTooLargeError, ObjectConflictError, OSError
            As `download`.
        """
        return await self._downloader.receive(digest, file)
