"""containerd's content store, which gets the layers of committed images.

A blob belongs to nothing until a manifest names it, and the next collection of garbage deletes what belongs to nothing.
So it is written under a lease, which is left to expire.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final

from grpclib import GRPCError, Status
from grpclib.client import Channel

from services.snapshotter.blobs import Blob
from services.snapshotter.errors import ContentError
from services.snapshotter.proto.content_grpc import ContentStub
from services.snapshotter.proto.content_pb2 import Info, UpdateRequest, WriteAction, WriteContentRequest
from services.snapshotter.proto.leases_grpc import LeasesStub
from services.snapshotter.proto.leases_pb2 import CreateRequest

__all__ = ["ContentStore"]

_LEASE: Final = timedelta(minutes=30)
"""How long a blob is kept for whoever asked for it: a build names its layers when it has made all of them."""
_TIMEOUT: Final = 60
"""Seconds for containerd to go on: it may be collecting garbage."""
_PIECE: Final = 1 << 20
"""Bytes of a message; containerd takes up to 16 MiB."""


class ContentStore:
    """Writes blobs.

    Parameters
    ----------
    socket
        containerd's.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def write(self, file: IO[bytes], blob: Blob, labels: Mapping[str, str], *, namespace: str) -> None:
        """Write a blob that is kept for a while, and for as long as something names it.

        Parameters
        ----------
        file
            Holds it.
        blob
            What it is.
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
            async with asyncio.timeout(_TIMEOUT) as patience, self._channel() as channel:
                lease = await _lease(channel, namespace)
                metadata = {"containerd-namespace": namespace, "containerd-lease": lease}
                store = ContentStub(channel)
                try:
                    await _write(store, file, blob, labels, metadata, patience)
                except GRPCError as error:
                    if error.status is not Status.ALREADY_EXISTS:
                        raise
                    await _label(store, blob, labels, metadata)
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
    store: ContentStub,
    file: IO[bytes],
    blob: Blob,
    labels: Mapping[str, str],
    metadata: Mapping[str, str],
    patience: asyncio.Timeout,
) -> None:
    """Send a blob; patience begins anew with each piece that has been taken."""
    reference, expected = f"cvmfs-diff-{secrets.token_hex(8)}", f"sha256:{blob.digest}"
    async with store.Write.open(metadata=dict(metadata)) as stream:
        for offset in range(0, max(blob.size, 1), _PIECE):
            last = offset + _PIECE >= blob.size
            request = WriteContentRequest(
                action=WriteAction.COMMIT if last else WriteAction.WRITE,
                ref=reference,
                total=blob.size,
                expected=expected,
                offset=offset,
                data=await asyncio.to_thread(os.pread, file.fileno(), _PIECE, offset),
                labels=labels,
            )
            await stream.send_message(request, end=last)
            if await stream.recv_message() is None:
                # Refused: leaving the stream raises why.
                return
            patience.reschedule(asyncio.get_running_loop().time() + _TIMEOUT)
        async for _ in stream:
            pass


async def _label(store: ContentStub, blob: Blob, labels: Mapping[str, str], metadata: Mapping[str, str]) -> None:
    """Label a blob that is there."""
    update = UpdateRequest(info=Info(digest=f"sha256:{blob.digest}", labels=labels))
    update.update_mask.paths.extend(f"labels.{name}" for name in labels)
    await store.Update(update, metadata=dict(metadata))
