"""A worker node as Kubernetes has one: the snapshotter, and a private containerd that is asked by CRI."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.commands import run
from harness.cri.client import CriClient
from harness.processes import Daemon, Service
from harness.sandbox import Sandbox
from harness.sandbox.traces import kill_cgroup, unmount_below
from services.snapshotter.kubernetes import RUNTIME, kubernetes_snippet
from services.snapshotter.settings import RemoteSnapshots, SnapshotterSettings

__all__ = ["CriNode"]

_PLUGINS: Final = Path("/usr/lib/cni")
"""Debian's network plugins."""

_CACHE: Final = Path("/var/lib/cni")
"""Where every user of these plugins on a machine keeps what it knows of networks; it cannot be told another place."""

_CONFIG: Final = """\
root = "{root}"
state = "{state}"
{sections}
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{networks}"
"""


class CriNode:
    """One node in a sandbox.

    Parameters
    ----------
    name
        Name of the node; unique in the sandbox.
    directory
        Directory on a real file system that gets everything the node keeps and logs.
    pause
        Image that every pod has a container of, in a registry on the loopback interface.
    snapshotter_env
        Settings of the snapshotter other than its sockets and its state, the root of the repositories among them.
    """

    def __init__(self, *, name: str, directory: Path, pause: str, snapshotter_env: Mapping[str, str]) -> None:
        self.name = name
        self.directory = directory
        # Paths of unix sockets are short, hence not below the workspace.
        self._runtime = Path("/run") / f"cri-{name}"
        self.socket = self._runtime / "snapshotter.sock"
        """The snapshotter's."""
        self.state = directory / "snapshotter"
        """What the snapshotter keeps."""
        self.logs = directory / "logs"
        """What pods write."""
        self._pause = pause
        self.containerd_socket = self._runtime / "containerd.sock"
        """containerd's API."""
        self.cgroup = f"{Sandbox.current().cgroup}/{name}"
        """Parent of the control groups of pods."""
        self._config = directory / "containerd.toml"
        self._root = directory / "containerd"
        self.containerd = Daemon(
            f"containerd of {name}",
            [
                *(sys.executable, "-m", "harness.sandbox.cgroup", f"{self.cgroup}/services"),
                *("containerd", "--config", str(self._config), "--log-level", "warn"),
            ],
            log=directory / "containerd.log",
        )
        self.snapshotter = Service(
            f"snapshotter of {name}",
            "services.snapshotter",
            log=directory / "snapshotter.log",
            env={
                "SNAPSHOTTER_SOCKET": str(self.socket),
                "SNAPSHOTTER_STATE": str(self.state),
                "SNAPSHOTTER_CONTAINERD": str(self.containerd_socket),
                "SNAPSHOTTER_REMOTE": RemoteSnapshots.CRI,
                **snapshotter_env,
            },
        )
        self.client = CriClient(self.containerd_socket, runtime=RUNTIME)
        """Has its pods made by the runtime that uses the snapshotter."""
        self.others = CriClient(self.containerd_socket)
        """Has them made as everybody else's."""

    async def start(self) -> None:
        """Start the snapshotter and containerd; errors as of `start_containerd`."""
        for directory in (self.directory, self.logs, self._runtime):
            directory.mkdir(parents=True, exist_ok=True)
        await self._write_configuration()
        await self.start_snapshotter()
        await self.start_containerd()

    async def start_containerd(self) -> None:
        """Start containerd, also beside pods that ran under an earlier one, and wait until pods can be run.

        Raises
        ------
        DaemonError
            It ended, or did not get ready in time.
        """
        self.containerd_socket.unlink(missing_ok=True)

        async def ready() -> bool:
            return self.containerd_socket.is_socket() and await self.client.is_ready()

        await self.containerd.start(ready)

    async def _write_configuration(self) -> None:
        networks = self.directory / "networks"
        networks.mkdir(exist_ok=True)
        # From one pod to the machine and back, which takes no firewall.
        addresses = {
            "type": "host-local",
            "dataDir": str(self.directory / "addresses"),
            "ranges": [[{"subnet": "10.88.0.0/24"}]],
        }
        network = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": addresses}]}
        (networks / "pods.conflist").write_text(json.dumps(network))
        cache = self.directory / "cni"
        cache.mkdir(exist_ok=True)
        _CACHE.mkdir(exist_ok=True)
        await run("mount", "--bind", cache, _CACHE)
        # As it is written for nodes of Kubernetes, but for systemd, which no sandbox has.
        settings = SnapshotterSettings(socket=self.socket, state=self.state)
        sections = kubernetes_snippet(settings, "1.7").replace("SystemdCgroup = true", "SystemdCgroup = false")
        self._config.write_text(
            _CONFIG.format(
                root=self._root,
                state=self._runtime / "containerd",
                socket=self.containerd_socket,
                pause=self._pause,
                plugins=_PLUGINS,
                networks=networks,
                sections=sections,
            )
        )

    async def start_snapshotter(self) -> None:
        """Start the snapshotter, also under a running containerd, and wait until its socket listens."""
        # A socket that a killed one left is no sign of readiness.
        self.socket.unlink(missing_ok=True)

        async def listens() -> bool:
            return self.socket.is_socket()

        await self.snapshotter.start(listens)

    def downloaded(self) -> int:
        """Return the bytes of all documents and layers that have been downloaded and are still there."""
        blobs = self._root / "io.containerd.content.v1.content" / "blobs"
        return sum(_size(path) for path in blobs.glob("*/*"))

    async def close(self) -> None:
        """End everything, whatever state it is in."""
        self.client.close()
        self.others.close()
        await self.containerd.stop()
        await self.snapshotter.stop()
        await asyncio.to_thread(kill_cgroup, self.cgroup)
        for directory in (self.directory, self._runtime):
            unmount_below(directory)
        if _CACHE.is_mount():
            await run("umount", _CACHE)


def _size(file: Path) -> int:
    """Return the size of a file, which containerd may be about to remove, in bytes."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
