"""From staged files to objects of a bucket, many at a time.

Most objects are small, and what each costs beside its request decides: files are read, hashed and removed by the dozen
in one go, away from the event loop.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from services.common.object_store.body import hash_part
from services.common.object_store.bucket import Bucket
from services.common.object_store.small import SmallPuts
from services.common.threads import run_to_end

__all__ = ["Uploads"]

_SIDE_BY_SIDE: Final = 64
"""Objects that are on their way at a time."""
_AT_ONCE: Final = 8
"""Most files that are read into memory at once, for each of these."""
_SMALL: Final = 64 << 10
"""Largest object that is sent from memory, in bytes."""
_CACHE_CONTROL: Final = "max-age=259200"
"""Objects never change; three days, as the stock tools set it up for Apache."""
_CONTENT_TYPE: Final = "application/octet-stream"


class _Loaded(NamedTuple):
    """A staged file."""

    path: str
    content: bytes | None
    """None where it is not small."""
    sha256: bytes = b""


class Uploads:
    """Uploads into one bucket.

    Parameters
    ----------
    bucket, small
        The bucket, and what puts small objects into it.
    prefix
        What the keys begin with.
    staging
        The directory that paths are relative to.
    threads
        Where files are read.
    """

    def __init__(self, *, bucket: Bucket, small: SmallPuts, prefix: str, staging: Path, threads: Executor) -> None:
        self._bucket = bucket
        self._small = small
        self._prefix = prefix
        self._staging = staging
        self._threads = threads

    def staged(self) -> list[str]:
        """List what is staged below `data`, in no order.

        Raises
        ------
        OSError
            It cannot be listed.
        """
        places = (f"data/{number:02x}" for number in range(256))
        return [f"{place}/{name}" for place in places for name in os.listdir(self._staging / place)]

    async def upload(self, paths: Sequence[str]) -> None:
        """Upload files, and remove each when it is there; the first failure ends it.

        Parameters
        ----------
        paths
            Relative to the staging directory; what is no longer there, another thread has uploaded.

        Raises
        ------
        ObjectStoreError
            The server failed or refused.
        OSError
            A file cannot be read.
        """
        count = max(1, min(_AT_ONCE, len(paths) // _SIDE_BY_SIDE))
        waiting = (paths[start : start + count] for start in range(0, len(paths), count))

        async def worker() -> None:
            for some in waiting:
                await self._upload_some(some)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_SIDE_BY_SIDE, len(paths))):
                    group.create_task(worker())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _upload_some(self, paths: Sequence[str]) -> None:
        loaded = await run_to_end(self._threads, partial(self._load, paths))
        for path, content, sha256 in loaded:
            if content is None:
                with contextlib.suppress(FileNotFoundError):
                    await self._send_file(path)
            else:
                await self._small.put(
                    self._prefix + path, content, sha256, cache_control=_CACHE_CONTROL, content_type=_CONTENT_TYPE
                )
        await run_to_end(self._threads, partial(self._remove, [path for path, _, _ in loaded]))

    def _load(self, paths: Iterable[str]) -> list[_Loaded]:
        loaded = []
        for path in paths:
            with contextlib.suppress(FileNotFoundError), open(self._staging / path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                content = file.readall() if size <= _SMALL else None
                loaded.append(_Loaded(path, content, hashlib.sha256(content or b"").digest()))
        return loaded

    def _remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._staging / path)

    async def _send_file(self, path: str) -> None:
        with (self._staging / path).open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            body = await run_to_end(
                self._threads, partial(hash_part, file, 0, size, threads=self._threads, tee=_nothing)
            )
            await self._bucket.request(
                "put_object",
                doing="uploading",
                key=self._prefix + path,
                body=body,
                CacheControl=_CACHE_CONTROL,
                ContentType=_CONTENT_TYPE,
            )


def _nothing(_piece: memoryview) -> None:
    """Hash only."""
