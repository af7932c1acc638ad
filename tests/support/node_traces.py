"""What a node keeps: mounts, and the graphdriver's directories, to see that nothing of it leaks."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.node import Node
from harness.processes import wait_until

__all__ = ["NodeTraces", "driver_home"]

_DIRECTORIES: Final = ("layers", "views", "trash", "spool", "copies")
"""Directories of the driver whose entries come and go with layers, containers and requests."""
_LEFT_INSIDE: Final = ("layers/*/incoming", "copies/*/tree.new")
"""What is being filled inside them."""
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
        for pattern in _LEFT_INSIDE:
            entries |= {str(path.relative_to(home)) for path in home.glob(pattern)}
        return cls(
            mounts=_mounts(),
            entries=frozenset(entries),
            broken_links=frozenset(str(link.relative_to(home)) for link in (home / "l").iterdir() if _is_broken(link)),
        )

    @classmethod
    async def settle(cls, node: Node, before: "NodeTraces") -> None:
        """Wait until a node keeps what it did before: copies go when their layers are published, mounts linger."""

        async def settled() -> bool:
            try:
                return not cls.of(node).since(before)
            except FileNotFoundError:
                return False  # something went while it was looked at

        try:
            await wait_until(settled, what="nothing more is kept")
        except TimeoutError as error:
            raise AssertionError(f"{error}: {cls.of(node).since(before)}") from None

    def since(self, before: "NodeTraces") -> list[str]:
        """Say what is there that was not before, and what is missing; nothing if there is no difference."""
        return [
            *(f"mount more: {point}" for point in sorted((self.mounts - before.mounts).elements())),
            *(f"mount less: {point}" for point in sorted((before.mounts - self.mounts).elements())),
            *(f"more: {name}" for name in sorted(self.entries - before.entries)),
            *(f"less: {name}" for name in sorted(before.entries - self.entries)),
            *(f"broken link: {name}" for name in sorted(self.broken_links - before.broken_links)),
        ]


def _is_broken(link: Path) -> bool:
    # A look along a link to a published layer may fail with its repository; those go when a layer has gone.
    return str(link.readlink()).startswith(("../layers/", "../copies/")) and not link.exists()


def _mounts() -> Counter[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return Counter(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), line.split()[4]) for line in lines)
