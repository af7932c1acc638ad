"""Builds the driver from its settings."""

from pathlib import Path
from typing import Final

from services.common.archive.limits import ArchiveLimits
from services.common.object_store import ObjectStore
from services.common.repository_name import RepositoryName
from services.graphdriver.settings import GraphDriverSettings, RepositoryMounts
from services.node.commit import Committer
from services.node.cvmfs.client_repositories import ClientRepositories
from services.node.cvmfs.finder import LayerFinder
from services.node.cvmfs.host_repositories import HostRepositories
from services.node.cvmfs.repositories import Repositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.cvmfs.talk import ClientTalk
from services.node.diffs import Diffs
from services.node.driver import Driver
from services.node.filling import LayerFiller
from services.node.house_keeping import HouseKeeper
from services.node.layers import LayerStore
from services.node.lineages import Lineages
from services.node.local_copies import LocalCopies
from services.node.masks import MaskStore
from services.node.mounted_unions import MountedUnions
from services.node.overlay_check import check_overlay
from services.node.reports import Reports
from services.node.union import UnionBuilder
from services.node.uses import Uses

__all__ = ["DriverFactory"]

_CLIENT_STATE: Final = Path("/var/lib/cvmfs")
"""Where CVMFS clients have their caches and sockets, unless their configuration says otherwise."""


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
        store: ObjectStore | None,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._store = store
        self._io = RepositoryIo(timeout=settings.lookup_timeout)

    def build(self, home: Path) -> Driver:
        """Build the driver for a home directory. Blocks.

        Raises
        ------
        MountError
            Containers cannot have their writable layers there.
        """
        settings = self._settings
        layers = LayerStore(home)
        features = check_overlay(home)
        masks = MaskStore(home)
        copies = LocalCopies(home=home, limits=self._limits)
        repositories = self._repositories(home)
        finder = LayerFinder(
            repositories=repositories,
            allowed=[RepositoryName(name) for name in settings.repositories],
            setting=settings.variable("repositories"),
            masks=masks,
            io=self._io,
            talk=ClientTalk(command=settings.cvmfs_talk, state=_CLIENT_STATE, io=self._io),
        )
        builder = UnionBuilder(
            layers=layers,
            masks=masks,
            copies=copies,
            finder=finder,
            io=self._io,
            wait=settings.publish_wait,
        )
        uses = Uses(repositories=repositories, copies=copies)
        lineages = Lineages(layers)
        unions = MountedUnions(layers=layers, builder=builder)
        return Driver(
            layers=layers,
            lineages=lineages,
            unions=unions,
            uses=uses,
            filler=LayerFiller(limits=self._limits),
            diffs=Diffs(
                lineages=lineages,
                builder=builder,
                committer=self._committer(copies),
                uses=uses,
                io=self._io,
                scratch=layers.scratch,
            ),
            reports=Reports(
                layers=layers,
                lineages=lineages,
                unions=unions,
                copies=copies,
                finder=finder,
                repositories=repositories,
                features=features,
            ),
            house=HouseKeeper(builder=builder, copies=copies, finder=finder, uses=uses),
        )

    def _committer(self, copies: LocalCopies) -> Committer:
        target = self._settings.upload_repository
        return Committer(
            copies=copies,
            store=self._store,
            repository=RepositoryName(target) if target is not None else None,
            layout=self._settings.layout,
            limits=self._limits,
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
