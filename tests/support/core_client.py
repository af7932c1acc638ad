"""A client by gRPC's own core, which does what containerd's does and grpclib's does not.

It takes the end of a connection as the protocol means it: what has begun goes on, and what the server has not begun
goes to the next one.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, TypeVar

import grpc.aio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from services.snapshotter.proto.snapshots_pb2 import (
    CleanupRequest,
    ListSnapshotsRequest,
    ListSnapshotsResponse,
    PrepareSnapshotRequest,
    PrepareSnapshotResponse,
    StatSnapshotRequest,
    StatSnapshotResponse,
)
from services.snapshotter.proto.types_pb2 import Mount

__all__ = ["CoreClient"]

_Response = TypeVar("_Response", bound=Message)
_SERVICE = "/containerd.services.snapshots.v1.Snapshots"


class CoreClient:
    """Calls the snapshotter over its socket, and over one connection."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    @classmethod
    @asynccontextmanager
    async def connected(cls, socket: Path) -> AsyncIterator[Self]:
        """Connect, as often as it needs to be."""
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(f"unix:{socket}", options=options) as channel:
            yield cls(channel)

    async def ready(self) -> None:
        """Wait until a server has sent its first frame."""
        await self._channel.channel_ready()

    async def leaves(self) -> None:
        """Wait until the server has said that it takes no more calls over this connection."""
        while self._channel.get_state() is grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

    async def prepare(self, key: str, parent: str = "") -> Mount:
        request = PrepareSnapshotRequest(snapshotter="cvmfs", key=key, parent=parent)
        (mount,) = (await self.call("Prepare", request, PrepareSnapshotResponse)).mounts
        return mount

    async def stat(self, key: str) -> StatSnapshotResponse:
        return await self.call("Stat", StatSnapshotRequest(snapshotter="cvmfs", key=key), StatSnapshotResponse)

    async def cleanup(self, size: int) -> None:
        """Have it clean up, with a request of at least that many bytes."""
        await self.call("Cleanup", CleanupRequest(snapshotter="x" * size), Empty)

    async def list(self) -> list[str]:
        call = self._channel.unary_stream(
            f"{_SERVICE}/List", ListSnapshotsRequest.SerializeToString, ListSnapshotsResponse.FromString
        )
        responses = [one async for one in call(ListSnapshotsRequest(snapshotter="cvmfs"), wait_for_ready=True)]
        return [info.name for response in responses for info in response.info]

    async def call(self, method: str, request: Message, response: type[_Response]) -> _Response:
        """Make a call, as soon as there is a server."""
        call = self._channel.unary_unary(f"{_SERVICE}/{method}", type(request).SerializeToString, response.FromString)
        answer: _Response = await call(request, wait_for_ready=True)
        return answer
