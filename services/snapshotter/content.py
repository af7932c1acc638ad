"""containerd's content store, which gets the layers of committed images.

A blob belongs to nothing until a manifest names it, and the next collection of garbage deletes what belongs to nothing.
So it is written under a lease, which is left to expire.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from grpclib import GRPCError, Status
from grpclib.client import Channel

from services.common.digest import Digest
from services.snapshotter.errors import ContentError
from services.snapshotter.proto.content_grpc import ContentStub
from services.snapshotter.proto.content_pb2 import Info, UpdateRequest, WriteAction, WriteContentRequest
from services.snapshotter.proto.leases_grpc import LeasesStub
from services.snapshotter.proto.leases_pb2 import CreateRequest

__all__ = ["ContentStore"]

_LEASE: Final = timedelta(minutes=30)
"""How long a blob is kept for whoever asked for it: a build names its layers when it has made all of them."""
_TIMEOUT: Final = 60
"""Seconds for a call; a blob has a few hundred bytes, but containerd may be collecting garbage."""


class ContentStore:
    """Writes small blobs.

    Parameters
    ----------
    socket
        containerd's.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def write(self, content: bytes, digest: Digest, labels: Mapping[str, str], *, namespace: str) -> None:
        """Write a blob that is kept for a while, and for as long as something names it.

        Parameters
        ----------
        content
            The blob.
        digest
            Its SHA-256.
        labels
            What it is labelled with, also if it is there already.
        namespace
            containerd's namespace of whoever asked for it.

        Raises
        ------
        ContentError
            containerd does not take it.
        """
        try:
            async with asyncio.timeout(_TIMEOUT), self._channel() as channel:
                lease = await _lease(channel, namespace)
                metadata = {"containerd-namespace": namespace, "containerd-lease": lease}
                await _write(ContentStub(channel), content, f"sha256:{digest}", labels, metadata)
        except (GRPCError, OSError, TimeoutError) as error:
            reason = error.message if isinstance(error, GRPCError) else str(error) or f"no answer in {_TIMEOUT} s"
            raise ContentError(
                f"containerd at {self._socket} does not take the layer of a committed image: {reason}"
            ) from error

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[Channel]:
        channel = Channel(path=str(self._socket))
        try:
            yield channel
        finally:
            channel.close()


async def _lease(channel: Channel, namespace: str) -> str:
    name = f"cvmfs-diff-{secrets.token_hex(8)}"
    expiry = (datetime.now(UTC) + _LEASE).isoformat(timespec="seconds")
    request = CreateRequest(id=name, labels={"containerd.io/gc.expire": expiry})
    await LeasesStub(channel).Create(request, metadata={"containerd-namespace": namespace})
    return name


async def _write(
    store: ContentStub, content: bytes, digest: str, labels: Mapping[str, str], metadata: Mapping[str, str]
) -> None:
    request = WriteContentRequest(
        action=WriteAction.COMMIT,
        ref=f"cvmfs-diff-{secrets.token_hex(8)}",
        total=len(content),
        expected=digest,
        data=content,
        labels=labels,
    )
    try:
        async with store.Write.open(metadata=dict(metadata)) as stream:
            await stream.send_message(request, end=True)
            async for _ in stream:
                pass
    except GRPCError as error:
        if error.status is not Status.ALREADY_EXISTS:
            raise
        update = UpdateRequest(info=Info(digest=digest, labels=labels))
        update.update_mask.paths.extend(f"labels.{name}" for name in labels)
        await store.Update(update, metadata=dict(metadata))
