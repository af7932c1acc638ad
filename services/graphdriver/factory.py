"""Builds the driver from its settings."""

from pathlib import Path

from services.common.archive.limits import ArchiveLimits
from services.graphdriver.settings import GraphDriverSettings, RepositoryMounts
from services.node.cvmfs.client_repositories import ClientRepositories
from services.node.cvmfs.host_repositories import HostRepositories
from services.node.cvmfs.repositories import Repositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.diffs import Diffs
from services.node.driver import Driver
from services.node.filling import LayerFiller
from services.node.house_keeping import HouseKeeper
from services.node.layers import LayerStore
from services.node.lineages import Lineages
from services.node.metrics import NodeMetrics
from services.node.mounted_unions import MountedUnions
from services.node.overlay_check import check_overlay
from services.node.parts import NodeParts
from services.node.reports import Reports
from services.node.store import NodeStore
from services.node.union import UnionBuilder

__all__ = ["DriverFactory"]


class DriverFactory:
    """Builds drivers, which share what does not depend on their home directory.

    Parameters
    ----------
    settings
        Settings of the driver.
    limits
        Bounds for layer archives.
    store
        Where commits are uploaded; None where none is configured.
    """

    def __init__(
        self,
        *,
        settings: GraphDriverSettings,
        limits: ArchiveLimits,
        store: NodeStore | None,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._store = store
        self._io = RepositoryIo(timeout=settings.lookup_timeout)
        self.metrics = NodeMetrics()
        """What they count, one after the other."""

    def build(self, home: Path) -> Driver:
        """Build the driver for a home directory. Blocks.

        Raises
        ------
        MountError
            Containers cannot have their writable layers there.
        """
        layers = LayerStore(home)
        features = check_overlay(home)
        repositories = self._repositories(home)
        node = NodeParts.build(
            home,
            settings=self._settings,
            limits=self._limits,
            store=self._store,
            repositories=repositories,
            io=self._io,
            metrics=self.metrics,
        )
        builder = UnionBuilder(
            layers=layers, masks=node.masks, directories=node.directories, finder=node.finder, io=self._io
        )
        lineages = Lineages(layers)
        unions = MountedUnions(layers=layers, builder=builder)
        return Driver(
            layers=layers,
            lineages=lineages,
            unions=unions,
            uses=node.uses,
            filler=LayerFiller(limits=self._limits),
            diffs=Diffs(
                lineages=lineages,
                builder=builder,
                committer=node.committer,
                uses=node.uses,
                io=self._io,
                scratch=layers.scratch,
            ),
            reports=Reports(
                layers=layers,
                lineages=lineages,
                unions=unions,
                copies=node.copies,
                finder=node.finder,
                repositories=repositories,
                features=features,
                state=node.state,
            ),
            house=HouseKeeper(unions=builder, copies=node.copies, finder=node.finder, uses=node.uses),
        )

    def _repositories(self, home: Path) -> Repositories:
        settings = self._settings
        if settings.repository_mounts is RepositoryMounts.HOST:
            return HostRepositories(root=settings.cvmfs_root, io=self._io)
        return ClientRepositories(
            directory=home / "repositories",
            command=settings.cvmfs2,
            io=self._io,
            mount_timeout=settings.mount_timeout,
            linger=settings.repository_linger,
            alternative=f"{settings.variable('repository_mounts')}={RepositoryMounts.HOST.value}",
        )
