"""A private Docker Engine: dockerd and containerd with directories, sockets and control groups of their own.

As on a machine with Debian's packages, containerd is a service beside dockerd. It survives when dockerd is killed, as
do the shims and the containers: the next dockerd finds them, as a real one does after a crash.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from harness.commands import Completed, run
from harness.processes import Daemon, DaemonError
from harness.sandbox import Sandbox
from harness.sandbox.traces import kill_cgroup, unmount_below

__all__ = ["Engine"]

_BRIDGE_ADDRESS: Final = "02:42:ac:1e:00:01"
_CONTAINERD_CONFIG: Final = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
{plugins}"""


class Engine:
    """One dockerd with its containerd, in a sandbox.

    Parameters
    ----------
    name
        Name of the engine, for messages and its control groups; unique in the sandbox.
    directory
        Directory on a real file system that gets everything the engine keeps and logs.
    storage_driver
        `overlay2`, the name of a plugin whose socket is `/run/docker/plugins/<name>.sock`, or that of a managed plugin
        which an earlier start with another driver has enabled.
    bridge
        Network, such as `172.30.0.1/24`, of a bridge that containers and builds use; they can then reach what the
        sandbox can, ports can be published, and networks be made. One engine of a sandbox can have one, since its
        firewall rules are the sandbox's. Without it there are the networks `none` and `host` only.
    arguments
        Further arguments of dockerd.
    snapshotter
        containerd's configuration of a snapshotter and a differ beside its own; then images are kept in containerd, and
        the storage driver is a snapshotter. Empty for containerd's own alone, None for images that dockerd keeps.

    Raises
    ------
    SandboxError
        The process does not run in a sandbox.
    """

    def __init__(
        self,
        *,
        name: str,
        directory: Path,
        storage_driver: str = "overlay2",
        bridge: str | None = None,
        arguments: Sequence[str] = (),
        snapshotter: str | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self.storage_driver = storage_driver
        """What the next start uses."""
        self._arguments = tuple(arguments)
        self._bridge = bridge
        self._snapshotter = snapshotter
        self.data_root = directory / "docker"
        """dockerd's data; a v1 plugin's home is the directory of its name in it."""
        # Paths of unix sockets are short, hence not below the workspace.
        self._runtime = Path("/run") / f"engine-{name}"
        self.socket = self._runtime / "docker.sock"
        """dockerd's API."""
        self._pidfile = self._runtime / "docker.pid"
        self.containerd_socket = self._runtime / "containerd.sock"
        """containerd's API."""
        self._cgroup = f"{Sandbox.current().cgroup}/{name}"
        self.containerd = Daemon(
            f"containerd of {name}",
            [
                *(sys.executable, "-m", "harness.sandbox.cgroup", f"{self._cgroup}/services"),
                *("containerd", "--config", str(self._containerd_config), "--log-level", "warn"),
            ],
            log=directory / "containerd.log",
        )
        self.dockerd = Daemon(
            f"dockerd of {name}",
            self._dockerd_command(),
            log=directory / "dockerd.log",
            # Docker 27 runs graphdriver plugins only where this is set, to anything.
            env={"DOCKERD_DEPRECATED_GRAPHDRIVER_PLUGINS": "1"},
        )

    @property
    def _containerd_config(self) -> Path:
        return self.directory / "containerd.toml"

    def _dockerd_command(self) -> list[str]:
        # Neither the machine's daemon.json nor its bridge, firewall or containerd.
        return [
            "dockerd",
            "--experimental",
            f"--config-file={self.directory / 'daemon.json'}",
            f"--storage-driver={self.storage_driver}",
            f"--data-root={self.data_root}",
            f"--exec-root={self._runtime / 'exec'}",
            f"--pidfile={self._pidfile}",
            f"--host=unix://{self.socket}",
            f"--containerd={self.containerd_socket}",
            f"--cgroup-parent={self._cgroup}",
            "--ip6tables=false",
            *self._network_arguments(),
            *self._arguments,
        ]

    def _network_arguments(self) -> list[str]:
        if self._bridge is None:
            return ["--bridge=none", "--iptables=false"]
        return [f"--bridge={self._bridge_name}", "--iptables=true"]

    @property
    def _bridge_name(self) -> str:
        # Not docker0, which every dockerd without a bridge deletes at its start.
        return f"br-{self.name}"

    @property
    def docker_env(self) -> dict[str, str]:
        """Environment for docker, buildx and compose that leads to this engine."""
        return {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.directory / "config")}

    async def start(self, *, timeout: float = 180) -> None:  # noqa: ASYNC109 - a time-out is the point
        """Start containerd, if it does not run, and dockerd, and wait until the API answers.

        Raises
        ------
        DaemonError
            One of them ended, or was not ready within `timeout` seconds.
        """
        (self.directory / "config").mkdir(parents=True, exist_ok=True)
        features = {} if self._snapshotter is None else {"features": {"containerd-snapshotter": True}}
        (self.directory / "daemon.json").write_text(json.dumps(features))
        self._runtime.mkdir(mode=0o711, exist_ok=True)
        if self._bridge is not None and not self._has_bridge():
            await self._make_bridge(self._bridge)
        if not self.containerd.running:
            await self._start_containerd(timeout)
        # Its own process is known to have ended: another one may have got the number in the file since.
        self._pidfile.unlink(missing_ok=True)
        self.dockerd.argv = self._dockerd_command()
        await self.dockerd.start(self._answers, timeout=timeout)

    async def _start_containerd(self, timeout: float) -> None:  # noqa: ASYNC109
        root = self.directory / "containerd"
        config = _CONTAINERD_CONFIG.format(
            root=root,
            state=self._runtime / "containerd",
            socket=self.containerd_socket,
            opt=root / "opt",
            plugins=self._snapshotter or "",
        )
        self._containerd_config.write_text(config)
        self.containerd_socket.unlink(missing_ok=True)

        async def listens() -> bool:
            return self.containerd_socket.is_socket()

        await self.containerd.start(listens, timeout=timeout)

    @property
    def gateway(self) -> str:
        """Address of the sandbox, to containers of an engine with a bridge."""
        if self._bridge is None:
            raise DaemonError(f"the engine {self.name} has no bridge")
        return self._bridge.partition("/")[0]

    def _has_bridge(self) -> bool:
        return self._bridge_name in (name for _, name in socket.if_nameindex())

    async def _make_bridge(self, network: str) -> None:
        # With no address of its own it takes the lowest of those connected, and who has the last one in mind waits.
        await run("ip", "link", "add", self._bridge_name, "address", _BRIDGE_ADDRESS, "type", "bridge")
        await run("ip", "address", "add", network, "dev", self._bridge_name)
        await run("ip", "link", "set", self._bridge_name, "up")

    async def _answers(self) -> bool:
        if not self.socket.is_socket():
            return False
        try:
            return await self.api("GET", "/_ping") == b"OK"
        except aiohttp.ClientError:
            return False

    async def stop(self) -> None:
        """Stop dockerd, which stops its containers."""
        await self.dockerd.stop(timeout=180)

    async def kill(self) -> None:
        """End dockerd with SIGKILL; containerd, the shims and the containers go on, as after a crash."""
        await self.dockerd.kill()

    async def close(self) -> None:
        """Stop everything, containers of a killed dockerd and their mounts included."""
        await self.stop()
        await self.containerd.stop()
        self._kill_shims()
        kill_cgroup(self._cgroup)
        for directory in (self.directory, self._runtime):
            unmount_below(directory)
        if self._has_bridge():
            await run("ip", "link", "delete", self._bridge_name)

    def _kill_shims(self) -> None:
        """End the shims that nobody waits for any more."""
        mine = os.fsencode(self.containerd_socket)
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"containerd-shim" in words[0] and mine in words:
                    os.kill(int(entry.name), signal.SIGKILL)

    async def docker(
        self,
        *arguments: str | os.PathLike[str],
        input: bytes | Path | None = None,  # noqa: A002 - the name that subprocess uses
        output: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 300,  # noqa: ASYNC109 - a time-out is the point
    ) -> Completed:
        """Run the docker client against this engine; parameters and errors as of `harness.commands.run`."""
        environment = {**self.docker_env, **(env or {})}
        return await run("docker", *arguments, input=input, output=output, env=environment, timeout=timeout)

    async def plugin_process(self, name: str) -> int:
        """Find the first process of an enabled managed plugin.

        Raises
        ------
        FileNotFoundError
            It does not run at the moment.
        """
        identity = (await self.docker("plugin", "inspect", "--format={{.Id}}", name)).text
        tasks = self._runtime / "containerd" / "io.containerd.runtime.v2.task" / "plugins.moby"
        return int((tasks / identity / "init.pid").read_text())

    async def api(self, method: str, path: str, *, json: Any = None) -> bytes:  # noqa: ANN401 - any JSON document
        """Call the Engine API directly, without the cost of a client process.

        Raises
        ------
        aiohttp.ClientResponseError
            The status is an error; the message is dockerd's.
        aiohttp.ClientError
            dockerd does not answer.
        """
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.request(method, f"http://docker{path}", json=json) as response,
        ):
            body = await response.read()
            if not response.ok:
                raise aiohttp.ClientResponseError(
                    response.request_info,
                    response.history,
                    status=response.status,
                    message=body.decode(errors="replace").strip(),
                )
            return body
