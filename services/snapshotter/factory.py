"""Builds the snapshotter from its settings."""

from dataclasses import dataclass

from services.common.archive.limits import ArchiveLimits
from services.common.repository_name import RepositoryName
from services.common.serial import SerialThread
from services.node.cvmfs.host_repositories import HostRepositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.house_keeping import HouseKeeper
from services.node.metrics import NodeMetrics
from services.node.overlay_check import check_overlay
from services.node.parts import NodeParts
from services.node.state_reader import NodeStateReader
from services.node.store import NodeStore
from services.snapshotter.content import ContentStore
from services.snapshotter.differ import Differ
from services.snapshotter.remote import RemoteLayers
from services.snapshotter.settings import RemoteSnapshots, SnapshotterSettings
from services.snapshotter.snapshots import Snapshotter
from services.snapshotter.store.store import SnapshotStore
from services.snapshotter.unions import Unions
from services.snapshotter.uploads import Uploads

__all__ = ["FrontEnd", "build"]


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """What serves containerd."""

    store: SnapshotStore
    """The snapshots; who builds them closes them."""
    snapshotter: Snapshotter
    differ: Differ
    metrics: NodeMetrics
    state: NodeStateReader


def build(
    *, settings: SnapshotterSettings, limits: ArchiveLimits, store: NodeStore | None, thread: SerialThread
) -> FrontEnd:
    """Build snapshotter and differ. Blocks.

    Parameters
    ----------
    settings
        Its settings.
    limits
        Bounds for layer archives.
    store
        Where commits are uploaded; None where none is configured.
    thread
        Where the snapshots are looked up and changed.

    Raises
    ------
    StateError
        What is on the disk cannot be used.
    MountError
        Containers cannot have their writable layers there.
    """
    snapshots = SnapshotStore(settings.state)
    thread.finish_by(snapshots.records.sync)
    check_overlay(settings.state)
    metrics = NodeMetrics()
    io = RepositoryIo(timeout=settings.lookup_timeout)
    node = NodeParts.build(
        settings.state,
        settings=settings,
        limits=limits,
        store=store,
        repositories=HostRepositories(root=settings.cvmfs_root, io=io),
        io=io,
        metrics=metrics,
    )
    unions = Unions(store=snapshots, thread=thread, directories=node.directories, io=io, masks=node.masks)
    house = HouseKeeper(unions=unions, copies=node.copies, finder=node.finder, uses=node.uses)
    remote = None
    if settings.remote is RemoteSnapshots.CRI:
        repositories = [RepositoryName(name) for name in settings.repositories]
        remote = RemoteLayers(repositories=repositories, finder=node.finder, io=io)
    return FrontEnd(
        store=snapshots,
        snapshotter=Snapshotter(
            store=snapshots, thread=thread, unions=unions, uses=node.uses, house=house, remote=remote
        ),
        differ=Differ(
            store=snapshots,
            thread=thread,
            unions=unions,
            uploads=Uploads(store=snapshots, thread=thread, committer=node.committer),
            content=ContentStore(settings.containerd),
        ),
        metrics=metrics,
        state=node.state,
    )
