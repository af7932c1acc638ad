"""Containers that stand still, to be looked at and timed."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from harness.engine import Engine

__all__ = ["Container", "run_container", "time_start"]


@dataclass(frozen=True, kw_only=True)
class Container:
    """A running container."""

    id: str
    pid: int
    """Of its first process."""

    @property
    def root(self) -> Path:
        """Its file system, as it sees it."""
        return Path(f"/proc/{self.pid}/root")


async def run_container(engine: Engine, image: str) -> Container:
    """Start a container that does nothing; the image must have `sleep`.

    Raises
    ------
    CommandError
        It does not start.
    """
    # As process 1 it ignores SIGTERM, and Docker would wait for it.
    options = ("--detach", "--network=none", "--user=0", "--stop-signal=SIGKILL", "--entrypoint=sleep")
    identity = (await engine.docker("run", *options, image, "infinity")).text
    pid = (await engine.docker("inspect", "--format={{.State.Pid}}", identity)).text
    return Container(id=identity, pid=int(pid))


async def time_start(engine: Engine, image: str) -> float:
    """Create, start and remove a container by the Engine API, without the cost of client processes.

    Returns
    -------
    float
        Seconds of all three.
    """
    config = {"Image": image, "Entrypoint": ["sleep"], "Cmd": ["600"], "HostConfig": {"NetworkMode": "none"}}
    started = time.perf_counter()
    created = json.loads(await engine.api("POST", "/containers/create", json=config))
    await engine.api("POST", f"/containers/{created['Id']}/start")
    await engine.api("DELETE", f"/containers/{created['Id']}?force=true")
    return time.perf_counter() - started
