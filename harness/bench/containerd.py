"""The rows of the snapshotter, beside containerd's own for overlayfs."""

import asyncio
import json
import time
from typing import Final

from harness.bench.containerd_rig import ContainerdRig
from harness.bench.material import LARGE_FILE
from harness.bench.measure import Row, Target, compare
from harness.bench.memory import resident
from harness.bench.rows import ONE_FILE, build_rows, commit_row, load_row, start_row
from harness.bench.subjects import Subject, bound, within
from harness.commands import run
from harness.registry import Registry

__all__ = ["build", "commit", "load", "many", "memory", "pull", "start"]

_AT_ONCE: Final = 50
"""Containers that start at the same time."""
_IDLE: Final = 60
"""MB that the snapshotter may use while nobody asks it for anything."""
_UPLOAD: Final = 1_000_000_000
"""Bytes of the layer whose upload is not to be seen in the memory that is used afterwards."""


async def memory(rig: ContainerdRig) -> list[Row]:
    """Measure the snapshotter with two images loaded, and after it has uploaded a gigabyte."""
    snapshotter, subject = rig.node.snapshotter.pid, rig.thin
    samples = {"idle": [resident(snapshotter)]}
    container = (
        await subject.engine.docker("run", "--detach", "--network=none", subject.image, "sleep", "infinity")
    ).text
    await subject.engine.docker("exec", container, "python3", "-c", LARGE_FILE, str(_UPLOAD))
    image = await subject.engine.docker("commit", container)
    await subject.settled(image.text)
    samples["after an upload"] = [resident(snapshotter)]
    await subject.engine.docker("kill", container)
    targets = tuple(Target(subject=name, limit=_IDLE) for name in samples)
    return [Row(name="containerd, memory", unit="MB", samples=samples, targets=targets)]


async def start(rig: ContainerdRig, runs: int) -> list[Row]:
    """Create, start and remove a container."""
    targets = (*within(rig.regular, 1.1), *within([rig.regular[0], rig.thin], 1.15))
    row = await start_row("containerd, create + start + remove", [*rig.regular, rig.thin], runs, targets=targets)
    return [row]


async def many(rig: ContainerdRig, runs: int) -> list[Row]:
    """Create and start many containers at once, until the last one runs."""

    async def once(subject: Subject) -> float:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            starts = [group.create_task(_start(subject)) for _ in range(_AT_ONCE)]
        seconds = time.perf_counter() - started
        for container in starts:
            await subject.engine.api("DELETE", f"/containers/{container.result()}?force=true")
        return seconds

    subjects = [*rig.regular, rig.thin]
    name = f"containerd, {_AT_ONCE} starts at once"
    return [await compare(name, bound(subjects, once), runs=runs, targets=within(subjects, 1.15))]


async def _start(subject: Subject) -> str:
    """Create and start a container that does nothing, and return its ID."""
    config = {"Image": subject.image, "Entrypoint": ["sleep"], "Cmd": ["600"], "HostConfig": {"NetworkMode": "none"}}
    identity: str = json.loads(await subject.engine.api("POST", "/containers/create", json=config))["Id"]
    await subject.engine.api("POST", f"/containers/{identity}/start")
    return identity


async def load(rig: ContainerdRig, runs: int) -> list[Row]:
    """Load an image of 160 MB."""
    archives = await rig.variants("loaded", runs + 1)
    return [await load_row("containerd, load of 160 MB Debian", rig.regular, archives, runs, limit=1.05)]


async def pull(rig: ContainerdRig, runs: int) -> list[Row]:
    """Pull the same from a registry on this machine."""
    archives = await rig.variants("pulled", runs + 1)
    registry = Registry(rig.directory / "registry")
    await registry.start()
    try:
        images = [f"{registry.address}/pulled:{number}" for number in range(len(archives))]
        for archive, image in zip(archives, images, strict=True):
            await run(
                *("skopeo", "copy", "--quiet", "--dest-tls-verify=false"),
                *(f"docker-archive:{archive}", f"docker://{image}"),
            )
        left = {subject.name: iter(images) for subject in rig.regular}

        async def once(subject: Subject) -> float:
            image = next(left[subject.name])
            started = time.perf_counter()
            await subject.engine.docker("pull", "--quiet", image)
            return time.perf_counter() - started

        name = "containerd, pull of 160 MB Debian"
        return [await compare(name, bound(rig.regular, once), runs=runs, targets=within(rig.regular, 1.05))]
    finally:
        await registry.close()


async def commit(rig: ContainerdRig, runs: int) -> list[Row]:
    """Commit one file; a thin image's commit includes its upload."""
    subjects = [*rig.regular, rig.thin]
    targets = within([rig.regular[0], rig.thin], 1.5)
    return [await commit_row("containerd, commit of one file", subjects, 3 * runs, script=ONE_FILE, targets=targets)]


async def build(rig: ContainerdRig, runs: int) -> list[Row]:
    """Build an image in ten steps, by BuildKit and by the classic builder."""
    targets = within(rig.regular, 1.05)
    return await build_rows("containerd, ten-step build", rig.regular, rig.directory, runs, targets=targets)
