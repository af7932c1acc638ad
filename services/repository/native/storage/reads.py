"""What is read of a bucket, without any lock: objects, and whether they are there."""

from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

from services.common.object_store.bucket import Bucket
from services.common.object_store.errors import ObjectMissingError
from services.common.together import all_of

__all__ = ["Reads"]

_PIECE: Final = 1 << 20
"""How much is read at a time, in bytes."""
_LOOKED_FOR: Final = 32
"""Objects that are looked for at a time."""


class Reads:
    """Requests about the part of a bucket that holds a repository; all raise ObjectStoreError where the bucket fails.

    Parameters
    ----------
    bucket
        The bucket.
    prefix
        What the keys begin with.
    """

    def __init__(self, *, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix

    async def head(self, path: str) -> Mapping[str, Any]:
        """Return what the server says of an object.

        Raises
        ------
        ObjectMissingError
            It is not there, or the whole bucket is not.
        """
        return await self._bucket.request("head_object", doing="looking for", key=self._prefix + path)

    async def missing(self, paths: Sequence[str]) -> Sequence[str]:
        """Return those objects that are not there."""
        waiting, missing = iter(paths), []

        async def look() -> None:
            for path in waiting:
                try:
                    await self.head(path)
                except ObjectMissingError:
                    missing.append(path)

        await all_of(look() for _ in range(min(_LOOKED_FOR, len(paths))))
        return missing

    async def list_page(self, path: str, page: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return one page of what is below a path."""
        return await self._bucket.request("list_objects_v2", doing="listing", Prefix=self._prefix + path, **page)

    async def fetch(self, path: str, file: IO[bytes]) -> None:
        """Write an object into a file, from its beginning again where something breaks.

        Raises
        ------
        ObjectMissingError
            It is not there.
        """
        async for attempt in self._bucket.attempts():
            with attempt:
                file.seek(0)
                file.truncate()
                await self._fetch_once(self._prefix + path, file)

    async def _fetch_once(self, key: str, file: IO[bytes]) -> None:
        answer = await self._bucket.request_once("get_object", doing="downloading", key=key)
        async with self._bucket.deadline(answer["ContentLength"], doing="downloading", key=key), answer["Body"] as body:
            while True:
                with self._bucket.failures(doing="downloading", key=key):
                    piece = await body.read(_PIECE)
                if not piece:
                    return
                file.write(piece)
