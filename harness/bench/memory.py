"""Peak memory of the services while a layer of two gigabytes passes them."""

from pathlib import Path
from typing import Final

from harness.bench.material import LARGE_FILE
from harness.bench.measure import Row, Target
from harness.bench.rig import Rig

__all__ = ["peak"]

_SIZE: Final = 2_000_000_000
"""Of the layer, in bytes."""

_LIMIT: Final = 150
"""MB that each service may use."""


def _peak(pid: int) -> float:
    """Return the largest resident set that a process and its children have had, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (own,) = (int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(_peak(int(child)) for child in children)


async def peak(rig: Rig) -> list[Row]:
    """Commit two gigabytes in a regular and in a thin container, and publish the latter."""
    for subject in (rig.regular[1], rig.thin):
        engine = subject.engine
        container = (await engine.docker("run", "--detach", "--network=none", subject.image, "sleep", "infinity")).text
        await engine.docker("exec", container, "python3", "-c", LARGE_FILE, str(_SIZE))
        image = await engine.docker("commit", container)
        await subject.settled(image.text)
        await engine.docker("kill", container)
    return [
        Row(
            name="peak memory, layer of 2 GB",
            unit="MB",
            samples={"driver": [_peak(rig.node.driver.pid)], "publisher": [_peak(rig.stratum0.publisher.pid)]},
            targets=(Target(subject="driver", limit=_LIMIT), Target(subject="publisher", limit=_LIMIT)),
        )
    ]
