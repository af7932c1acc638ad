"""What every front end is built on, put together from its settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from services.common.archive.limits import ArchiveLimits
from services.common.repository_name import RepositoryName
from services.node.commit import Committer
from services.node.cvmfs.finder import LayerFinder
from services.node.cvmfs.repositories import Repositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.cvmfs.talk import ClientTalk
from services.node.local_copies import LocalCopies
from services.node.lower_directories import LowerDirectories
from services.node.masks import MaskStore
from services.node.metrics import NodeMetrics
from services.node.settings import NodeSettings
from services.node.state_reader import NodeStateReader
from services.node.store import NodeStore
from services.node.uses import Uses
from services.node.work_memory import WorkMemory

__all__ = ["NodeParts"]

_CLIENT_STATE: Final = Path("/var/lib/cvmfs")
"""Where CVMFS clients have their caches and sockets, unless their configuration says otherwise."""


@dataclass(frozen=True, kw_only=True)
class NodeParts:
    """The parts that work below one directory, whatever the front end calls its layers."""

    masks: MaskStore
    copies: LocalCopies
    finder: LayerFinder
    directories: LowerDirectories
    committer: Committer
    uses: Uses
    state: NodeStateReader

    @classmethod
    def build(
        cls,
        home: Path,
        *,
        settings: NodeSettings,
        limits: ArchiveLimits,
        store: NodeStore | None,
        repositories: Repositories,
        io: RepositoryIo,
        metrics: NodeMetrics,
    ) -> Self:
        """Build them. Blocks.

        Parameters
        ----------
        home
            The existing directory that they keep things in.
        settings
            The front end's settings.
        limits
            Bounds for layer archives.
        store
            Where commits are uploaded; None where none is configured.
        repositories
            The repositories on this machine.
        io
            Threads for look-ups in them.
        metrics
            What is counted.
        """
        masks = MaskStore(home)
        copies = LocalCopies(home=home, limits=limits)
        finder = LayerFinder(
            repositories=repositories,
            allowed=[RepositoryName(name) for name in settings.repositories],
            setting=settings.variable("repositories"),
            masks=masks,
            io=io,
            talk=ClientTalk(command=settings.cvmfs_talk, state=_CLIENT_STATE, io=io),
            metrics=metrics,
        )
        target = settings.upload_repository
        return cls(
            masks=masks,
            copies=copies,
            finder=finder,
            directories=LowerDirectories(masks=masks, copies=copies, finder=finder, wait=settings.publish_wait),
            committer=Committer(
                copies=copies,
                masks=masks,
                store=store,
                repository=RepositoryName(target) if target is not None else None,
                layout=settings.layout,
                limits=limits,
                metrics=metrics,
                memory=WorkMemory(settings.work_memory, metrics=metrics),
            ),
            uses=Uses(repositories=repositories, copies=copies),
            state=NodeStateReader(copies=copies, finder=finder, repositories=repositories, io=io),
        )
