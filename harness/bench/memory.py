"""Peak memory of the services while a layer of two gigabytes passes them."""

from pathlib import Path
from typing import Final

from harness.bench.material import LARGE_FILE
from harness.bench.measure import Row, Target
from harness.bench.rig import Rig
from harness.peak_memory import peak_memory

__all__ = ["large_layer", "peaks", "resident"]

_SIZE: Final = 2_000_000_000
"""Of the layer, in bytes."""

_LIMIT: Final = 150
"""MB that each service may use."""


def _peak(pid: int) -> float:
    """Return the largest resident set that a process and its children have had, in MB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return peak_memory(pid) / 1e6 + sum(_peak(int(child)) for child in children)


def resident(pid: int) -> float:
    """Return the resident set that a process has at the moment, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (size,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return size * 1024 / 1e6


def peaks(rig: Rig, name: str, limit: float | None) -> Row:
    """Return what both services have used at most since they were started; `limit` is a target in MB."""
    pids = {"driver": rig.node.driver.pid, "publisher": rig.stratum0.publisher.pid}
    targets = () if limit is None else tuple(Target(subject=subject, limit=limit) for subject in pids)
    return Row(name=name, unit="MB", samples={subject: [_peak(pid)] for subject, pid in pids.items()}, targets=targets)


async def large_layer(rig: Rig) -> list[Row]:
    """Commit two gigabytes in a regular and in a thin container, and publish the latter, with nothing done before."""
    for subject in (rig.regular[1], rig.thin):
        engine = subject.engine
        container = (await engine.docker("run", "--detach", "--network=none", subject.image, "sleep", "infinity")).text
        await engine.docker("exec", container, "python3", "-c", LARGE_FILE, str(_SIZE))
        image = await engine.docker("commit", container)
        await subject.settled(image.text)
        await engine.docker("kill", container)
    return [peaks(rig, "peak memory, layer of 2 GB", _LIMIT)]
