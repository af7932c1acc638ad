"""The differ: commits of thin containers become thin layers.

What it does not know how to do better than containerd's own differ, which compares the trees that are mounted, it
declines at once.
"""

import asyncio
import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from services.common.archive.pack import has_changes
from services.common.descriptor import DESCRIPTOR_NAME, ThinDescriptor
from services.common.digest import Digest
from services.node.lineage import Lineage, holds_descriptor
from services.snapshotter.content import ContentStore
from services.snapshotter.errors import BadRequestError, DeclinedError
from services.snapshotter.mounts import Mount, thin_number
from services.snapshotter.serial import SerialThread
from services.snapshotter.store.model import Kind, Snapshot
from services.snapshotter.store.store import SnapshotStore
from services.snapshotter.unions import Unions
from services.snapshotter.uploads import Uploads

__all__ = ["Blob", "Differ"]

_log = structlog.get_logger(__name__)

_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_MEDIA_TYPES: Final = (_GZIP, "application/vnd.docker.image.rootfs.diff.tar.gzip")
_UNCOMPRESSED: Final = "containerd.io/uncompressed"
"""Label of a compressed blob: the digest of what is in it. Without it dockerd takes no layer."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer in containerd's content store."""

    media_type: str
    digest: Digest
    size: int
    diff_id: Digest


class Differ:
    """Makes layers of what snapshots change.

    Parameters
    ----------
    store
        The snapshots.
    thread
        Where the store is used.
    unions
        Finds what lies below snapshots.
    uploads
        Uploads what they change.
    content
        Gets the layers.
    """

    def __init__(
        self,
        *,
        store: SnapshotStore,
        thread: SerialThread,
        unions: Unions,
        uploads: Uploads,
        content: ContentStore,
    ) -> None:
        self._store = store
        self._thread = thread
        self._unions = unions
        self._uploads = uploads
        self._content = content

    async def diff(
        self,
        left: Sequence[Mount],
        right: Sequence[Mount],
        *,
        media_type: str,
        labels: Mapping[str, str],
        namespace: str,
    ) -> Blob:
        """Make a layer of what a snapshot on a thin image changes.

        Parameters
        ----------
        left
            What is mounted for a view of its parent.
        right
            What is mounted for it, or for a view of it.
        media_type
            Of the layer; may be empty.
        labels
            What the blob is labelled with.
        namespace
            containerd's; that of the snapshot if it is empty.

        Returns
        -------
        Blob
            A layer with the new descriptor alone; an empty one if nothing has been changed.

        Raises
        ------
        DeclinedError
            It is no snapshot on a thin image, or something else is asked for.
        CommitError
            What it changes could not be uploaded.
        ContentError
            containerd does not take the layer.
        """
        if media_type not in ("", *_MEDIA_TYPES):
            raise DeclinedError(f"layers of type {media_type} are not made here")
        view, chain = await self._thread.run(lambda: self._find(left, right))
        lineage = await self._unions.lineage(chain[1:])
        layer = self._store.layer(chain[0])
        if lineage.thin is None or await asyncio.to_thread(holds_descriptor, layer):
            raise DeclinedError(f"snapshot {chain[0].name} is no change of a thin image")
        content = await self._layer(chain, lineage)
        blob, data = await asyncio.to_thread(_compress, content, media_type or _GZIP)
        await self._content.write(
            data,
            blob.digest,
            {**labels, _UNCOMPRESSED: f"sha256:{blob.diff_id}"},
            namespace=namespace or _namespace(view),
        )
        _log.info("thin_layer_made", snapshot=chain[0].name, digest=blob.digest, size=blob.size)
        return blob

    def _find(self, left: Sequence[Mount], right: Sequence[Mount]) -> tuple[Snapshot, list[Snapshot]]:
        """Return what is mounted, and the snapshot whose changes are meant with all below it, top first."""
        mounted, below = self._mounted(right), self._mounted(left)
        chain = self._store.records.chain(mounted.number)
        if mounted.kind is Kind.VIEW:
            chain = chain[1:]
        if below.kind is not Kind.VIEW or len(chain) < 2 or below.parent_number != chain[1].number:  # noqa: PLR2004
            raise DeclinedError(f"{below.name} is no view of what lies below {mounted.name}")
        return mounted, chain

    def _mounted(self, mounts: Sequence[Mount]) -> Snapshot:
        numbers = [thin_number(mount) for mount in mounts]
        if len(numbers) != 1 or numbers[0] is None:
            raise DeclinedError("not mounted for a snapshot of a thin image")
        snapshot = self._store.records.get(numbers[0])
        if snapshot is None:
            raise DeclinedError(f"there is no snapshot {numbers[0]} any more")
        return snapshot

    async def _layer(self, chain: Sequence[Snapshot], lineage: Lineage) -> bytes:
        if not await asyncio.to_thread(has_changes, self._store.layer(chain[0]).diff):
            return _tar(None)
        return _tar(await self._uploads.descriptor(chain, lineage))


def _namespace(snapshot: Snapshot) -> str:
    """Return the namespace that containerd puts before the keys of its clients."""
    namespace, separator, _ = snapshot.name.partition("/")
    if not separator:
        raise BadRequestError(f"the key {snapshot.name} has no namespace, and the call has none")
    return namespace


def _tar(descriptor: ThinDescriptor | None) -> bytes:
    """Write a layer tar with a descriptor, always the same for the same one; without any, an empty one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        if descriptor is not None:
            content = descriptor.encode()
            member = tarfile.TarInfo(DESCRIPTOR_NAME)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _compress(content: bytes, media_type: str) -> tuple[Blob, bytes]:
    data = gzip.compress(content, mtime=0)
    digest, diff_id = (Digest(hashlib.sha256(part).hexdigest()) for part in (data, content))
    return Blob(media_type, digest, len(data), diff_id), data
