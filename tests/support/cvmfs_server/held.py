"""A second mount of a repository's tree, which keeps a publish from ending."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from harness.processes import wait_until
from tests.support.cvmfs_server.standin import StandIn
from tests.support.mounts import mount

__all__ = ["second_mount"]


@asynccontextmanager
async def second_mount(
    standin: StandIn, directory: Path, *, private: bool, follows: bool = False
) -> AsyncIterator[str]:
    """Mount a repository's tree a second time, and say where.

    Parameters
    ----------
    standin
        The repository; its tree has a directory `lower`.
    directory
        Where an overlay may be mounted.
    private
        Whether a mount namespace has it, or an overlay.
    follows
        Whether what is unmounted outside the namespace is unmounted in it.
    """
    if private:
        propagation = "slave" if follows else "private"
        process = await asyncio.create_subprocess_exec(
            "unshare", "--mount", f"--propagation={propagation}", "sleep", "infinity"
        )
        try:
            own = os.readlink("/proc/self/ns/mnt")
            unshared = lambda: asyncio.sleep(  # noqa: E731 - a condition
                0,
                os.readlink(f"/proc/{process.pid}/ns/mnt") != own
                and Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n",
            )
            await wait_until(unshared, what="it has a mount namespace of its own")
            yield f"for process {process.pid} (sleep)"
        finally:
            process.kill()
            await process.wait()
        return
    for name in ("point", "upper", "work"):
        (directory / name).mkdir()
    options = f"lowerdir={standin.area}/lower,upperdir={directory}/upper,workdir={directory}/work"
    mount("-t", "overlay", "overlay", "-o", options, directory / "point")
    try:
        yield f"at {directory}/point"
    finally:
        unmount = await asyncio.create_subprocess_exec("umount", directory / "point")
        assert await unmount.wait() == 0
