"""A driver's process with a thin image and many containers, as an engine has it, and what it uses."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

from harness.peak_memory import peak_memory
from harness.s3 import S3Access
from tests.support.driver import tar_of
from tests.support.engine_client import EngineClient
from tests.support.plugin_process import PluginProcess
from tests.support.repositories import Repository, thin_json

__all__ = ["MIB", "LoadedNode"]

MIB: Final = 1 << 20
_NOISE: Final = random.Random(0).randbytes(8 * MIB)  # noqa: S311 # what no compression makes smaller
_THIN: Final = "thin"


class LoadedNode:
    """A driver in a process of its own.

    Parameters
    ----------
    process
        The driver.
    """

    def __init__(self, process: PluginProcess) -> None:
        self.process = process
        self._number = 0

    @classmethod
    @asynccontextmanager
    async def running(
        cls, directory: Path, access: S3Access, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator[Self]:
        """Start a driver, with a thin image of one layer.

        Parameters
        ----------
        directory
            For all it keeps; on a real file system.
        access
            Where it uploads commits.
        settings
            Further settings of it.
        """
        directory.mkdir(parents=True, exist_ok=True)
        process = PluginProcess(directory, {**access.environment, **(settings or {})})
        # Memory says nothing of a process that was forked of one with everything loaded.
        process.daemon.forks = None
        try:
            await process.start()
            await process.call("Init", Home=str(process.home))
            await process.call("Create", ID=_THIN, Parent="")
            url = Repository(directory / "cvmfs").publish("one", {"file": "content"})
            async with EngineClient.connected(process.socket) as client:
                tar = tar_of({"thin.json": thin_json(url).decode()})
                await client.stream(f"/GraphDriver.ApplyDiff?id={_THIN}&parent=", tar)
                assert (await client.answer()).status == 200
            yield cls(process)
        finally:
            await process.daemon.stop()

    def diff(self, container: str) -> Path:
        """Return the directory of what a container has changed."""
        return self.process.home / "layers" / container / "diff"

    async def containers(self, number: int, size: int = 0) -> list[str]:
        """Make containers of the thin image; each has a new file of `size` bytes that does not compress, if any."""
        names = []
        for _ in range(number):
            self._number += 1
            name = f"container{self._number}"
            await self.process.call("CreateReadWrite", ID=name, Parent=_THIN)
            if size:
                await asyncio.to_thread(_write, self.diff(name) / "file", name, size)
            names.append(name)
        return names

    async def commit(self, names: list[str]) -> None:
        """Commit containers, all at once."""
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(self.process.call_for_bytes("Diff", ID=name, Parent=_THIN))

    async def remove(self, names: list[str]) -> None:
        """Remove containers, one after the other."""
        for name in names:
            await self.process.call("Remove", ID=name)

    async def peak(self, names: list[str]) -> int:
        """Commit containers, all at once, and return the most memory that the driver has used meanwhile, in bytes."""
        pid = self.process.daemon.pid
        await asyncio.to_thread(Path(f"/proc/{pid}/clear_refs").write_text, "5")  # proc(5): the peak begins anew
        await self.commit(names)
        return peak_memory(pid)

    def cpu_seconds(self) -> float:
        """Return how much of a processor the driver has used so far."""
        fields = Path(f"/proc/{self.process.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _write(file: Path, mark: str, size: int) -> None:
    with file.open("wb") as opened:
        opened.write(mark.encode().ljust(64))
        for offset in range(0, size, len(_NOISE)):
            opened.write(memoryview(_NOISE)[: size - offset])
