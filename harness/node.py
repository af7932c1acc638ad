"""A worker node: the graphdriver and a private Docker Engine that uses it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.engine import Engine
from harness.processes import Service

__all__ = ["Node"]

_PLUGIN_DIRECTORY: Final = Path("/run/docker/plugins")
"""Where dockerd looks for plugins; private in a sandbox."""


class Node:
    """One worker node in a sandbox.

    Parameters
    ----------
    name
        Name of the node and of its storage driver; unique in the sandbox.
    directory
        Directory on a real file system that gets everything the node keeps and logs.
    cvmfs_root
        Directory that holds the mounted repositories, as `/cvmfs` does; several nodes may share one.
    driver_env
        Settings of the graphdriver other than its socket, its state and the root of the repositories.
    engine_arguments
        Further arguments of dockerd.
    """

    def __init__(
        self,
        *,
        name: str,
        directory: Path,
        cvmfs_root: Path,
        driver_env: Mapping[str, str],
        engine_arguments: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.directory = directory
        self.cvmfs_root = cvmfs_root
        self.plugin_socket = _PLUGIN_DIRECTORY / f"{name}.sock"
        self.state = directory / "graphdriver"
        """What the graphdriver keeps."""
        self.driver = Service(
            f"graphdriver of {name}",
            "services.graphdriver",
            log=directory / "graphdriver.log",
            env={
                "GRAPHDRIVER_SOCKET": str(self.plugin_socket),
                "GRAPHDRIVER_STATE": str(self.state),
                "GRAPHDRIVER_CVMFS_ROOT": str(cvmfs_root),
                **driver_env,
            },
        )
        self.engine = Engine(name=name, directory=directory / "engine", storage_driver=name, arguments=engine_arguments)

    async def start(self) -> None:
        """Start the graphdriver and the engine.

        Raises
        ------
        DaemonError
            One of them ended, or did not get ready in time.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        await self.start_driver()
        await self.engine.start()

    async def start_driver(self) -> None:
        """Start the graphdriver, also under a running engine, and wait until its socket listens."""
        # A socket that a killed driver left is no sign of readiness.
        self.plugin_socket.unlink(missing_ok=True)

        async def listens() -> bool:
            return self.plugin_socket.is_socket()

        await self.driver.start(listens)

    async def stop(self) -> None:
        """Stop the engine, then the graphdriver, as a machine that shuts down does."""
        await self.engine.stop()
        await self.driver.stop()

    async def close(self) -> None:
        """End everything, whatever state it is in."""
        await self.engine.close()
        await self.driver.stop()
