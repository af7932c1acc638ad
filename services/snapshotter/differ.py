"""The differ: commits of thin containers become thin layers.

What a container or a step of a build has changed on a thin image is uploaded, and the layer holds the new descriptor
alone. A step that has a descriptor itself, be it a copied file of the build's, becomes a layer of the step's own files:
what is mounted for it is the image that the descriptor stands for, and compared with what lies below, it would be all
of that image. A container shows no such image, whatever it has at that place: it is committed with an ordinary file.

What else there is, containerd's own differ does as well, which compares the trees that are mounted: it is declined at
once.
"""

import asyncio
import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryFile
from typing import Final

import structlog

from services.common.archive.pack import has_changes, pack
from services.common.archive.tarwriter import Sink
from services.common.descriptor import DESCRIPTOR_NAME, ThinDescriptor
from services.common.errors import SuiteError
from services.common.serial import SerialThread
from services.common.streams import run_in_thread
from services.node.errors import CommitError
from services.node.lineage import holds_descriptor
from services.snapshotter.blobs import DEFAULT_MEDIA_TYPE, MEDIA_TYPES, Blob, write_blob
from services.snapshotter.content import ContentStore
from services.snapshotter.errors import BadRequestError, DeclinedError
from services.snapshotter.mounts import Mount, read_only_paths, thin_number
from services.snapshotter.store.model import Kind, Snapshot
from services.snapshotter.store.store import SnapshotStore
from services.snapshotter.unions import Unions
from services.snapshotter.uploads import Uploads

__all__ = ["Differ"]

_log = structlog.get_logger(__name__)

_UNCOMPRESSED: Final = "containerd.io/uncompressed"
"""Label of a blob: the digest of the tar in it. Without it dockerd takes no layer."""


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
        """Make a layer of what a snapshot on a thin image changes, or of one with a descriptor.

        Parameters
        ----------
        left
            What is mounted for a view of its parent; nothing if it has none.
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
            A layer with the new descriptor alone; an empty one if nothing has been changed. Of a snapshot with a
            descriptor, a layer of its own files.

        Raises
        ------
        DeclinedError
            It is neither, or something else is asked for.
        CommitError
            What it changes could not be uploaded, or not be packed.
        ContentError
            containerd does not take the layer.
        """
        media_type = media_type or DEFAULT_MEDIA_TYPE
        if media_type not in MEDIA_TYPES:
            raise DeclinedError(f"layers of type {media_type} are not made here")
        view, chain = await self._thread.run(lambda: self._find(left, right))
        write = await self._content_of(chain)
        labels = dict(labels)
        with await asyncio.to_thread(lambda: TemporaryFile(dir=self._store.root)) as file:
            try:
                blob = await run_in_thread(lambda: write_blob(file, media_type, write))
            except (SuiteError, OSError) as error:
                raise CommitError(f"snapshot {chain[0].name} was not committed: {error}") from error
            labels[_UNCOMPRESSED] = f"sha256:{blob.diff_id}"
            await self._content.write(file, blob, labels, namespace=namespace or _namespace(view))
        _log.info("layer_made", snapshot=chain[0].name, digest=blob.digest, size=blob.size)
        return blob

    def _find(self, left: Sequence[Mount], right: Sequence[Mount]) -> tuple[Snapshot, list[Snapshot]]:
        """Return what is mounted, and the snapshot whose changes are meant with all below it, top first."""
        mounted = self._mounted(right)
        if mounted is None:
            raise DeclinedError("not mounted for a snapshot of a thin image")
        chain = self._store.records.chain(mounted.number)
        if mounted.kind is Kind.VIEW:
            chain = chain[1:]
        if not chain or not self._shows(left, chain[1:]):
            raise DeclinedError(f"compared with something else than what lies below {mounted.name}")
        return mounted, chain

    def _shows(self, mounts: Sequence[Mount], chain: Sequence[Snapshot]) -> bool:
        """Return whether this is mounted for a view of the topmost snapshot of a chain, or for none of an empty one."""
        snapshot = self._mounted(mounts)
        if snapshot is not None:
            return snapshot.kind is Kind.VIEW and bool(chain) and snapshot.parent_number == chain[0].number
        shown = [path for mount in mounts for path in read_only_paths(mount)]
        if not chain and shown:
            # A view that stands on nothing shows the nothing that is in its own directory.
            view = self._store.at(shown[0]) if len(shown) == 1 else None
            return view is not None and view.kind is Kind.VIEW and view.parent_number is None
        return len(mounts) <= 1 and shown == [str(self._store.diff(below)) for below in chain]

    def _mounted(self, mounts: Sequence[Mount]) -> Snapshot | None:
        """Return the snapshot of a thin image that is mounted; None if none is."""
        number = thin_number(mounts[0]) if len(mounts) == 1 else None
        if number is None:
            return None
        snapshot = self._store.records.get(number)
        if snapshot is None:
            raise DeclinedError(f"there is no snapshot {number} any more")
        return snapshot

    async def _content_of(self, chain: Sequence[Snapshot]) -> Callable[[Sink], object]:
        """Return what writes the tar of a snapshot's layer."""
        own, lineage = self._store.layer(chain[0]), await self._unions.lineage(chain[1:])
        if chain[0].kind is Kind.COMMITTED and await asyncio.to_thread(holds_descriptor, own):
            return lambda sink: pack(own.diff, sink)
        if lineage.thin is None:
            raise DeclinedError(f"snapshot {chain[0].name} is no change of a thin image")
        changed = await asyncio.to_thread(has_changes, own.diff)
        tar = _tar(await self._uploads.descriptor(chain, lineage) if changed else None)
        return lambda sink: sink.write(tar)


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
