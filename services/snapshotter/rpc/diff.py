"""The service `containerd.services.diff.v1.Diff`."""

from collections.abc import Iterable

from grpclib.server import Stream

from services.snapshotter.differ import Differ
from services.snapshotter.errors import DeclinedError
from services.snapshotter.mounts import Mount
from services.snapshotter.proto.diff_grpc import DiffBase
from services.snapshotter.proto.diff_pb2 import ApplyRequest, ApplyResponse, DiffRequest, DiffResponse
from services.snapshotter.proto.types_pb2 import Descriptor
from services.snapshotter.proto.types_pb2 import Mount as WireMount
from services.snapshotter.rpc.calls import Calls, namespace_of, received

__all__ = ["DiffHandlers"]


class DiffHandlers(DiffBase):
    """Translates between messages and the differ.

    Parameters
    ----------
    differ
        Does what is asked for.
    calls
        Counts what is being served.
    """

    def __init__(self, *, differ: Differ, calls: Calls) -> None:
        self._differ = differ
        self._calls = calls

    async def Apply(self, stream: Stream[ApplyRequest, ApplyResponse]) -> None:  # noqa: N802
        """Leave unpacking to containerd's own differ: it comes here for every layer of every image on the node."""
        async with self._calls.one("Apply"):
            await received(stream)
            raise DeclinedError("layers are unpacked by containerd's own differ")

    async def Diff(self, stream: Stream[DiffRequest, DiffResponse]) -> None:  # noqa: N802
        """Make a layer of what a snapshot changes."""
        async with self._calls.one("Diff"):
            request = await received(stream)
            blob = await self._differ.diff(
                _mounts(request.left),
                _mounts(request.right),
                media_type=request.media_type,
                labels=dict(request.labels),
                namespace=namespace_of(stream),
            )
            layer = Descriptor(media_type=blob.media_type, digest=f"sha256:{blob.digest}", size=blob.size)
            await stream.send_message(DiffResponse(diff=layer))


def _mounts(mounts: Iterable[WireMount]) -> list[Mount]:
    return [Mount(mount.type, mount.source, tuple(mount.options)) for mount in mounts]
