"""Whether the published tree is mounted where a publish expects it, and nowhere else.

At its end a publish unmounts the tree and mounts the new revision. It waits for the CVMFS client of the old one to end,
which does not as long as anything has the tree mounted a second time: an overlay on `/cvmfs/REPOSITORY`, a bind mount,
or a mount namespace whose mounts do not follow those of the machine. The program says nothing of it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Final

import structlog

from services.common.threads import in_thread
from services.repository.cvmfs_server.mounts import Mount, namespaces, own_mounts
from services.repository.cvmfs_server.place import Place

__all__ = ["Branch"]

_log = structlog.get_logger(__name__)

_LOOK: Final = 20
"""Seconds between two looks while something is published: most publishes have ended before the first."""


class Branch:
    """The mounts of one repository.

    Parameters
    ----------
    place
        Where it is.
    threads
        Where blocking work runs.
    look
        Seconds between two looks while something is published.
    """

    def __init__(self, place: Place, threads: Executor, *, look: float = _LOOK) -> None:
        self._points = tuple(os.path.realpath(point) for point in (place.published, place.area))
        self._name = place.name
        self._threads = threads
        self._look = look
        self._mounts: tuple[Mount, ...] = ()
        self.held: str | None = None
        """Who keeps the publish that is under way from ending, as far as that is known."""

    def mounted(self) -> bool:
        """Tell whether the tree, and the union over it, are mounted; blocking.

        A mount point answers to whoever asks for its file system also where nothing is mounted.
        """
        return set(self._points) <= {mount.point for mount in own_mounts()}

    def remember(self) -> None:
        """Take note of what is mounted: a publish that hangs has unmounted it already; blocking."""
        # Other file systems than the program's have one number for all that is mounted of them.
        self._mounts = tuple(
            mount
            for mount in own_mounts()
            if mount.point in self._points and (mount.kind == "overlay" or mount.kind.startswith("fuse"))
        )

    def holders(self) -> str | None:
        """Say who has the tree mounted a second time; blocking."""
        found = list(self._holders())
        if not found:
            return None
        return f"the published tree of {self._name} is mounted a second time, which keeps a publish from ending: " + (
            "; ".join(found)
        )

    def _holders(self) -> Iterator[str]:
        for mount in own_mounts():
            if mount.point not in self._points and self._holds(mount):
                yield f"at {mount.point}"
        for namespace in namespaces():
            for mount in namespace.mounts:
                if self._holds(mount) and not self._follows(mount):
                    yield f"at {mount.point} for process {namespace.process} ({namespace.command})"

    def _holds(self, mount: Mount) -> bool:
        if mount.device in {known.device for known in self._mounts}:
            return True
        return any(lower == point or lower.startswith(f"{point}/") for lower in mount.lower for point in self._points)

    def _follows(self, mount: Mount) -> bool:
        """Tell whether a mount in another namespace ends with the one here."""
        return any(known.device == mount.device and known.peers & mount.peers for known in self._mounts)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look now and then who keeps a publish from ending; what is found is logged, and in `held`."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))
            self.held = None

    async def _watch(self) -> None:
        missed = False
        while True:
            await asyncio.sleep(self._look)
            self.held = await in_thread(self._threads, lambda _stop: self.holders())
            missing = not await in_thread(self._threads, lambda _stop: self.mounted())
            if self.held is None and missing and missed:
                self.held = (
                    f"a publish of {self._name} has had nothing mounted for more than {self._look:g} s: something that "
                    "cannot be seen from here may have the published tree mounted a second time"
                )
            missed = missing
            if self.held is not None:
                _log.error("a publish cannot end", reason=self.held)
