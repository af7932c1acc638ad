"""A worker node with containerd: the snapshotter, and a private Docker Engine that keeps its images in containerd."""

from collections.abc import Mapping
from pathlib import Path

from harness.commands import Completed, run
from harness.engine import Engine
from harness.handed_over import HandedOver
from harness.processes import Daemon, Service
from services.snapshotter.settings import SnapshotterSettings
from services.snapshotter.snippets import NAME, containerd_sections

__all__ = ["ContainerdNode"]

_MODULE = "services.snapshotter"


class ContainerdNode:
    """One worker node in a sandbox.

    Parameters
    ----------
    name
        Name of the node; unique in the sandbox.
    directory
        Directory on a real file system that gets everything the node keeps and logs.
    cvmfs_root
        Directory that holds the mounted repositories, as `/cvmfs` does; several nodes may share one.
    snapshotter_env
        Settings of the snapshotter other than its sockets, its state and the root of the repositories.
    handed_over
        Whether the snapshotter's socket is the node's and outlives it, as one of a service manager does.
    """

    def __init__(
        self,
        *,
        name: str,
        directory: Path,
        cvmfs_root: Path,
        snapshotter_env: Mapping[str, str],
        handed_over: bool = False,
    ) -> None:
        self.name = name
        self.directory = directory
        settings = SnapshotterSettings(socket=Path(f"/run/{name}/snapshotter.sock"), state=directory / "snapshotter")
        self.socket = settings.socket
        self.state = settings.state
        """What the snapshotter keeps."""
        self.engine = Engine(
            name=name,
            directory=directory / "engine",
            storage_driver=NAME,
            snapshotter=containerd_sections(settings),
        )
        self._listener = HandedOver(self.socket) if handed_over else None
        program, log = f"snapshotter of {name}", directory / "snapshotter.log"
        environment = {
            "SNAPSHOTTER_SOCKET": str(self.socket),
            "SNAPSHOTTER_STATE": str(self.state),
            "SNAPSHOTTER_CONTAINERD": str(self.engine.containerd_socket),
            "SNAPSHOTTER_CVMFS_ROOT": str(cvmfs_root),
            **snapshotter_env,
        }
        self.snapshotter: Daemon = (
            Service(program, _MODULE, log=log, env=environment)
            if self._listener is None
            else Daemon(
                program,
                self._listener.command(_MODULE),
                log=log,
                env=environment,
                descriptors=[self._listener.descriptor],
            )
        )

    async def start(self) -> None:
        """Start the snapshotter and the engine.

        Raises
        ------
        DaemonError
            One of them ended, or did not get ready in time.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._listener is not None:
            self._listener.listen()
        await self.start_snapshotter()
        await self.engine.start()

    async def start_snapshotter(self) -> None:
        """Start the snapshotter, also under a running engine, and wait until whoever connects waits for its answers."""
        if self._listener is not None:
            await self.snapshotter.start(self._listener.is_served)
            return
        # A socket that a killed one left is no sign of readiness.
        self.socket.unlink(missing_ok=True)

        async def listens() -> bool:
            return self.socket.is_socket()

        await self.snapshotter.start(listens)

    async def ctr(self, *arguments: str | Path) -> Completed:
        """Run containerd's own client; parameters and errors as of `harness.commands.run`."""
        return await run("ctr", "--address", str(self.engine.containerd_socket), *arguments)

    async def close(self) -> None:
        """End everything, whatever state it is in."""
        await self.engine.close()
        await self.snapshotter.stop()
        if self._listener is not None:
            self._listener.close()
