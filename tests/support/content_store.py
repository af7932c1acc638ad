"""containerd's content store and leases, as far as the differ sees them."""

import gzip
import hashlib
import io
import tarfile
from datetime import UTC, datetime

from grpclib import GRPCError, Status
from grpclib.server import Stream

from services.common.descriptor import ThinDescriptor
from services.snapshotter.proto.content_grpc import ContentBase
from services.snapshotter.proto.content_pb2 import (
    UpdateRequest,
    UpdateResponse,
    WriteAction,
    WriteContentRequest,
    WriteContentResponse,
)
from services.snapshotter.proto.leases_grpc import LeasesBase
from services.snapshotter.proto.leases_pb2 import CreateRequest, CreateResponse, Lease

__all__ = ["UNCOMPRESSED", "Content", "Leases"]

UNCOMPRESSED = "containerd.io/uncompressed"
"""Label of a compressed blob: the digest of what is in it."""


class Content(ContentBase):
    """containerd's content store, as far as the differ sees it."""

    def __init__(self, leases: set[str]) -> None:
        self._leases = leases
        self.blobs: dict[str, tuple[str, bytes, dict[str, str]]] = {}
        """Namespace, content and labels by digest."""

    async def Write(self, stream: Stream[WriteContentRequest, WriteContentResponse]) -> None:  # noqa: N802
        metadata = dict(stream.metadata or {})
        assert metadata["containerd-lease"] in self._leases
        data = b""
        async for request in stream:
            if request.expected in self.blobs:
                raise GRPCError(Status.ALREADY_EXISTS, f"content {request.expected}: already exists")
            assert request.offset == len(data)
            assert len(request.data) <= 1 << 20
            data += request.data
            await stream.send_message(WriteContentResponse(action=request.action, offset=len(data)))
            if request.action == WriteAction.COMMIT:
                break
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert (request.expected, request.total) == (digest, len(data))
        self.blobs[digest] = str(metadata["containerd-namespace"]), data, dict(request.labels)

    async def Update(self, stream: Stream[UpdateRequest, UpdateResponse]) -> None:  # noqa: N802
        request = await stream.recv_message()
        assert request is not None
        for path in request.update_mask.paths:
            label = path.removeprefix("labels.")
            self.blobs[request.info.digest][2][label] = request.info.labels[label]
        await stream.send_message(UpdateResponse(info=request.info))

    def descriptor(self, digest: str) -> ThinDescriptor:
        """Return what is in the only file of a layer."""
        (content,) = self.files(digest).values()
        return ThinDescriptor.parse(content, where=digest)

    def files(self, digest: str) -> dict[str, bytes]:
        """Return what is in a layer."""
        _, content, labels = self.blobs[digest]
        tar = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        assert labels[UNCOMPRESSED] == f"sha256:{hashlib.sha256(tar).hexdigest()}"
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            return {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in archive}


class Leases(LeasesBase):
    """containerd's leases, as far as the differ sees them."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    async def Create(self, stream: Stream[CreateRequest, CreateResponse]) -> None:  # noqa: N802
        request = await stream.recv_message()
        assert request is not None
        assert datetime.fromisoformat(request.labels["containerd.io/gc.expire"]) > datetime.now(UTC)
        self.names.add(request.id)
        await stream.send_message(CreateResponse(lease=Lease(id=request.id)))
