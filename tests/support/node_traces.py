"""What a node keeps: mounts, and the graphdriver's directories, to see that nothing of it leaks."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.node import Node

__all__ = ["NodeTraces", "driver_home"]

_DIRECTORIES: Final = ("layers", "views", "trash", "spool", "copies")
"""Directories of the driver whose entries come and go with layers, containers and requests."""
_LEFT_INSIDE: Final = ("incoming", "tree.new")
"""Names of what is being filled inside them."""
_ESCAPE = re.compile(r"\\([0-7]{3})")


def driver_home(node: Node) -> Path:
    """Return the directory in which a node's graphdriver keeps everything."""
    return node.engine.data_root / node.name


@dataclass(frozen=True)
class NodeTraces:
    """What a node keeps at one moment."""

    mounts: Counter[str]
    """Mount points, with how many mounts each has, of this sandbox."""
    entries: frozenset[str]
    """Entries of the driver's directories, relative to its home, and what is half-done in them."""
    broken_links: frozenset[str]
    """Short links of the driver that lead to none of its layers."""

    @classmethod
    def of(cls, node: Node) -> "NodeTraces":
        """Look."""
        home = driver_home(node)
        entries = {str(path.relative_to(home)) for name in _DIRECTORIES for path in (home / name).iterdir()}
        for name in _LEFT_INSIDE:
            entries |= {str(path.relative_to(home)) for path in home.glob(f"*/*/{name}")}
        links = (home / "l").iterdir()
        return cls(
            mounts=_mounts(),
            entries=frozenset(entries),
            # Links to published layers are absolute and stay.
            broken_links=frozenset(
                str(link.relative_to(home)) for link in links if not link.readlink().is_absolute() and not link.exists()
            ),
        )

    def since(self, before: "NodeTraces") -> list[str]:
        """Say what is there that was not before, and what is missing; nothing if there is no difference."""
        return [
            *(f"mount more: {point}" for point in sorted((self.mounts - before.mounts).elements())),
            *(f"mount less: {point}" for point in sorted((before.mounts - self.mounts).elements())),
            *(f"more: {name}" for name in sorted(self.entries - before.entries)),
            *(f"less: {name}" for name in sorted(before.entries - self.entries)),
            *(f"broken link: {name}" for name in sorted(self.broken_links - before.broken_links)),
        ]


def _mounts() -> Counter[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return Counter(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), line.split()[4]) for line in lines)
