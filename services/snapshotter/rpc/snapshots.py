"""The service `containerd.services.snapshots.v1.Snapshots`."""

from typing import Final

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from grpclib.server import Stream

from services.snapshotter.mounts import Mount
from services.snapshotter.proto.snapshots_grpc import SnapshotsBase
from services.snapshotter.proto.snapshots_pb2 import (
    CleanupRequest,
    CommitSnapshotRequest,
    Info,
    ListSnapshotsRequest,
    ListSnapshotsResponse,
    MountsRequest,
    MountsResponse,
    PrepareSnapshotRequest,
    PrepareSnapshotResponse,
    RemoveSnapshotRequest,
    StatSnapshotRequest,
    StatSnapshotResponse,
    UpdateSnapshotRequest,
    UpdateSnapshotResponse,
    UsageRequest,
    UsageResponse,
    ViewSnapshotRequest,
    ViewSnapshotResponse,
)
from services.snapshotter.proto.snapshots_pb2 import Kind as WireKind
from services.snapshotter.proto.types_pb2 import Mount as WireMount
from services.snapshotter.rpc.calls import Calls, received
from services.snapshotter.snapshots import Snapshotter
from services.snapshotter.store.model import Kind, Snapshot

__all__ = ["SnapshotsHandlers"]

_CHUNK: Final = 100
"""Snapshots in one message of a list."""


class SnapshotsHandlers(SnapshotsBase):
    """Translates between messages and the snapshotter.

    Parameters
    ----------
    snapshotter
        Does what is asked for.
    calls
        Counts what is being served.
    """

    def __init__(self, *, snapshotter: Snapshotter, calls: Calls) -> None:
        self._snapshotter = snapshotter
        self._calls = calls

    async def Prepare(self, stream: Stream[PrepareSnapshotRequest, PrepareSnapshotResponse]) -> None:  # noqa: N802
        """Make a snapshot to be written to."""
        async with self._calls.one("Prepare"):
            request = await received(stream)
            mount = await self._snapshotter.create(request.key, request.parent, Kind.ACTIVE, dict(request.labels))
            await stream.send_message(PrepareSnapshotResponse(mounts=[_mount(mount)]))

    async def View(self, stream: Stream[ViewSnapshotRequest, ViewSnapshotResponse]) -> None:  # noqa: N802
        """Make a snapshot to be read."""
        async with self._calls.one("View"):
            request = await received(stream)
            mount = await self._snapshotter.create(request.key, request.parent, Kind.VIEW, dict(request.labels))
            await stream.send_message(ViewSnapshotResponse(mounts=[_mount(mount)]))

    async def Mounts(self, stream: Stream[MountsRequest, MountsResponse]) -> None:  # noqa: N802
        """Tell what is mounted for a snapshot."""
        async with self._calls.one("Mounts"):
            request = await received(stream)
            mount = await self._snapshotter.mounts(request.key)
            await stream.send_message(MountsResponse(mounts=[_mount(mount)]))

    async def Commit(self, stream: Stream[CommitSnapshotRequest, Empty]) -> None:  # noqa: N802
        """Finish a snapshot."""
        async with self._calls.one("Commit"):
            request = await received(stream)
            await self._snapshotter.commit(request.name, request.key, dict(request.labels))
            await stream.send_message(Empty())

    async def Remove(self, stream: Stream[RemoveSnapshotRequest, Empty]) -> None:  # noqa: N802
        """Remove a snapshot."""
        async with self._calls.one("Remove"):
            request = await received(stream)
            await self._snapshotter.remove(request.key)
            await stream.send_message(Empty())

    async def Stat(self, stream: Stream[StatSnapshotRequest, StatSnapshotResponse]) -> None:  # noqa: N802
        """Describe a snapshot."""
        async with self._calls.one("Stat"):
            request = await received(stream)
            snapshot = await self._snapshotter.stat(request.key)
            await stream.send_message(StatSnapshotResponse(info=_info(snapshot)))

    async def Update(self, stream: Stream[UpdateSnapshotRequest, UpdateSnapshotResponse]) -> None:  # noqa: N802
        """Change labels."""
        async with self._calls.one("Update"):
            request = await received(stream)
            snapshot = await self._snapshotter.update(
                request.info.name, dict(request.info.labels), list(request.update_mask.paths)
            )
            await stream.send_message(UpdateSnapshotResponse(info=_info(snapshot)))

    async def List(self, stream: Stream[ListSnapshotsRequest, ListSnapshotsResponse]) -> None:  # noqa: N802
        """Describe all snapshots, or those that fit."""
        async with self._calls.one("List"):
            request = await received(stream)
            found = [_info(snapshot) for snapshot in await self._snapshotter.search(list(request.filters))]
            for start in range(0, len(found), _CHUNK):
                await stream.send_message(ListSnapshotsResponse(info=found[start : start + _CHUNK]))

    async def Usage(self, stream: Stream[UsageRequest, UsageResponse]) -> None:  # noqa: N802
        """Tell what a snapshot takes on the disk."""
        async with self._calls.one("Usage"):
            request = await received(stream)
            usage = await self._snapshotter.usage(request.key)
            await stream.send_message(UsageResponse(size=usage.size, inodes=usage.inodes))

    async def Cleanup(self, stream: Stream[CleanupRequest, Empty]) -> None:  # noqa: N802
        """Delete what removed snapshots have left."""
        async with self._calls.one("Cleanup"):
            await received(stream)
            await self._snapshotter.clean_up()
            await stream.send_message(Empty())


def _mount(mount: Mount) -> WireMount:
    return WireMount(type=mount.type, source=mount.source, options=mount.options)


def _info(snapshot: Snapshot) -> Info:
    return Info(
        name=snapshot.name,
        parent=snapshot.parent,
        kind=WireKind.ValueType(snapshot.kind),
        created_at=_timestamp(snapshot.created),
        updated_at=_timestamp(snapshot.updated),
        labels=snapshot.labels,
    )


def _timestamp(nanoseconds: int) -> Timestamp:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=rest)
