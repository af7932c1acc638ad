"""What tells machines that objects of a bucket may have been deleted by a collection of another one.

The locks of a machine keep its own collections from what it uses. Other machines are told by a file of the root, which
a collection replaces before it deletes anything and afterwards. Who has looked into it before it looked for an object,
and finds the same before a revision names the object, under the lease, knows that nobody has deleted it. A collection
that was killed leaves the file as it was while it deleted: the next holder of the lease replaces it, since nothing that
was begun under a former lease deletes anything any more.
"""

import json
import secrets
from typing import Final, NamedTuple

from services.common.object_store.errors import ObjectMissingError
from services.repository.native.storage.fenced import FencedRequests

__all__ = ["COLLECTION_FILE", "CollectionRecord"]

COLLECTION_FILE: Final = ".cvmfs_thin_collection.json"
"""Relative to the root of the repository."""


class _Found(NamedTuple):
    version: str | None
    token: str
    deleting: bool


class CollectionRecord:
    """The record of one repository; used in one event loop.

    Parameters
    ----------
    requests
        About the repository.
    """

    def __init__(self, requests: FencedRequests) -> None:
        self._requests = requests

    async def token(self) -> str:
        """Return what is another text once a collection has begun or ended; empty where there was none ever.

        Raises
        ------
        ObjectStoreError
            The bucket failed.
        """
        return (await self._look()).token

    async def settle(self) -> str:
        """Return the same to the holder of the lease, after a collection that was killed has been ended.

        Raises
        ------
        OvertakenError
            The lease is over.
        ObjectStoreError
            The bucket failed.
        """
        found = await self._look()
        return await self.write(deleting=False) if found.deleting else found.token

    async def write(self, *, deleting: bool) -> str:
        """Note that a collection begins or ends to delete; return what `token` does from now on. Errors as `settle`."""
        found = await self._look()
        token = secrets.token_hex(8)
        content = json.dumps({"token": token, "deleting": deleting}).encode()
        await self._requests.exchange(COLLECTION_FILE, content, found.version)
        return token

    async def _look(self) -> _Found:
        try:
            content, version = await self._requests.look(COLLECTION_FILE)
        except ObjectMissingError:
            return _Found(None, "", deleting=False)
        try:
            document = json.loads(content)
            return _Found(version, str(document["token"]), deleting=bool(document["deleting"]))
        except (ValueError, KeyError, TypeError):
            return _Found(version, "damaged", deleting=True)  # it is replaced as if a collection had been killed
