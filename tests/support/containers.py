"""A container in each state in which a crash can find it, and everything that can be done with them afterwards."""

import asyncio
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from harness.containers import Container, run_container
from harness.engine import Engine
from harness.trees import CONTAINER_EXCLUSIONS, Tree, differences, read_directory

__all__ = ["Trio"]

_KEPT = "/kept"


@dataclass(kw_only=True)
class Trio:
    """Three containers of one image, the last two with a change of their own."""

    engine: Engine
    image: str
    created: str
    stopped: str
    running: Container
    tree: Tree
    """The file system of the running one."""

    @classmethod
    async def make(cls, engine: Engine, image: str) -> "Trio":
        """Create one, start one, and start and stop one."""
        created, stopped, running = await asyncio.gather(
            engine.docker("create", "--network=none", "--stop-signal=SIGKILL", image, "sleep", "infinity"),
            run_container(engine, image),
            run_container(engine, image),
        )
        await asyncio.gather(*(_change(engine, container.id) for container in (stopped, running)))
        await engine.docker("stop", stopped.id)
        tree = await _read(running)
        return cls(engine=engine, image=image, created=created.text, stopped=stopped.id, running=running, tree=tree)

    async def has_survived(self) -> None:
        """Check that the running one runs on, with all its files."""
        assert await _pid(self.engine, self.running.id) == self.running.pid
        assert differences(self.tree, await _read(self.running)) == []

    async def start_again(self) -> None:
        """Start the running one again, which must have ended."""
        assert await _pid(self.engine, self.running.id) == 0
        await self.engine.docker("start", self.running.id)

    async def restart(self) -> None:
        """Restart the running one, which runs on, but not with its files."""
        assert await _pid(self.engine, self.running.id) == self.running.pid
        await self.engine.docker("restart", self.running.id)
        self.running = Container(id=self.running.id, pid=await _pid(self.engine, self.running.id))

    async def has_its_files(self) -> None:
        """Check that the running one, whatever process it has now, shows the files that it had."""
        assert differences(self.tree, await self._tree_of(self.running.id)) == []

    async def use(self, directory: Path) -> None:
        """Do everything with them, and remove them; `directory` is the caller's own and does not exist."""
        await asyncio.gather(
            self._use_running(directory / "running"),
            self._use_stopped(directory / "stopped"),
            self._use_created(),
        )

    async def _use_running(self, directory: Path) -> None:
        container = self.running.id
        await self.has_its_files()
        assert await self._exec(container, f"echo again >> {_KEPT}; cat {_KEPT}") == "kept\nagain"
        await self._copy(container, directory)
        await self._commit(container, "kept\nagain")
        await self.engine.docker("stop", container)
        await self.engine.docker("start", container)
        assert await self._exec(container, f"cat {_KEPT} /copied") == "kept\nagain\ncopied"
        await self.engine.docker("rm", "--force", container)

    async def _use_stopped(self, directory: Path) -> None:
        container = self.stopped
        assert await _pid(self.engine, container) == 0
        await self._copy(container, directory)
        await self._commit(container, "kept")
        await self.engine.docker("start", container)
        assert await self._exec(container, f"cat {_KEPT} /copied; ls /etc/debian_version") == (
            "kept\ncopied\n/etc/debian_version"
        )
        await self.engine.docker("stop", container)
        await self.engine.docker("rm", container)

    async def _use_created(self) -> None:
        await self.engine.docker("start", self.created)
        assert await self._exec(self.created, "ls /etc/debian_version") == "/etc/debian_version"
        await self.engine.docker("rm", "--force", self.created)

    async def _exec(self, container: str, script: str) -> str:
        return (await self.engine.docker("exec", container, "sh", "-ec", script)).text

    async def _copy(self, container: str, directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "copied").write_text("copied\n")
        await self.engine.docker("cp", directory / "copied", f"{container}:/")
        out = await self.engine.docker("cp", f"{container}:/copied", "-")
        with tarfile.open(fileobj=io.BytesIO(out.stdout)) as archive:
            member = archive.extractfile("copied")
            assert member is not None
            assert member.read() == b"copied\n"

    async def _commit(self, container: str, content: str) -> None:
        image = f"{self.image}-{container[:12]}"
        await self.engine.docker("commit", container, image)
        container_of_it = await run_container(self.engine, image)
        assert (container_of_it.root / _KEPT.removeprefix("/")).read_text() == f"{content}\n"
        await self.engine.docker("rm", "--force", container_of_it.id)
        await self.engine.docker("rmi", image)

    async def _tree_of(self, container: str) -> Tree:
        return await _read(Container(id=container, pid=await _pid(self.engine, container)))


async def _change(engine: Engine, container: str) -> None:
    await engine.docker("exec", container, "sh", "-ec", f"echo kept > {_KEPT}; rm -r /home /etc/issue; chmod 700 /srv")


async def _pid(engine: Engine, container: str) -> int:
    return int((await engine.docker("inspect", "--format={{.State.Pid}}", container)).text)


async def _read(container: Container) -> Tree:
    return await asyncio.to_thread(read_directory, container.root, exclusions=CONTAINER_EXCLUSIONS)
