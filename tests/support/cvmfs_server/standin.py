"""The stand-in as a test uses it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.processes import wait_until
from tests.support.cvmfs_server.area import Area
from tests.support.cvmfs_server.control import POINTS

__all__ = ["StandIn"]

_PROJECT = Path(__file__).parents[3]


class StandIn:
    """A machine with `cvmfs_server` and one repository.

    Parameters
    ----------
    root
        Directory for everything.
    name
        The repository.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self.name = name
        self._area = Area(root, name)
        self._bin = root / "bin"

    def create(self) -> None:
        """Install the program and make the repository."""
        self._bin.mkdir(parents=True)
        program = self._bin / "cvmfs_server"
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH="{_PROJECT}" exec "{sys.executable}" -m tests.support.cvmfs_server "$@"\n'
        )
        program.chmod(0o755)
        self.run("mkfs", self.name)

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes a program find the stand-in and its directories."""
        return {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "CVMFS_STANDIN": str(self._root),
        }

    @property
    def mount(self) -> Path:
        """What the real program calls `/cvmfs`."""
        return self._root / "mount"

    @property
    def spool(self) -> Path:
        """What the real program calls `/var/spool/cvmfs`."""
        return self._root / "spool"

    @property
    def configuration(self) -> Path:
        """What the real program calls `/etc/cvmfs/repositories.d`."""
        return self._root / "configuration"

    @property
    def area(self) -> Path:
        """The repository as it is on the stratum 0, a transaction's changes included."""
        return self._area.union

    @property
    def published(self) -> Path:
        """The repository as its clients see it."""
        return self._area.current

    @property
    def revision(self) -> int:
        """Number of the published revision."""
        return self._area.revision

    @property
    def flag(self) -> Path:
        """What is there while a transaction is open."""
        return self._area.transaction_flag

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.flag.exists()

    @property
    def healthy(self) -> bool:
        """Whether everything is mounted as it should be."""
        return self._area.healthy

    def run(self, *arguments: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the program as an operator does."""
        done = subprocess.run(
            ["cvmfs_server", *arguments],
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            cwd="/",
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def lose_mounts(self) -> None:
        """Unmount everything, as a restart of the machine does."""
        self._area.unmount()

    def lose_client(self) -> None:
        """Let the CVMFS client of the published revision die."""
        self._area.lose_client()

    def end(self) -> None:
        """End what the program has left running."""
        for repository in os.listdir(self.configuration):
            Area(self._root, repository).end_client()

    @property
    def publishing_lock(self) -> Path:
        """File that is locked while something is published."""
        return self._area.publishing_lock

    def configure(self, name: str, value: str) -> None:
        """Set a value in the repository's configuration."""
        configuration = self._area.configuration
        lines = [line for line in configuration.read_text().splitlines() if not line.startswith(f"{name}=")]
        configuration.write_text("\n".join([*lines, f"{name}={value}"]) + "\n")

    def want(self, name: str, text: str = "", *, repository: str | None = None) -> None:
        """Put a control file where the program looks; see `control.py`."""
        assert "." not in name or name.startswith("garbage.") or name.partition(".")[2] in POINTS, name
        control = self._area.control if repository is None else Area(self._root, repository).control
        (control / name).write_text(text)

    def no_longer(self, name: str) -> None:
        """Take a control file away."""
        (self._area.control / name).unlink()

    async def kill_programs(self) -> None:
        """Kill every running call of the program, as a power failure does, and wait until it is gone."""
        running = [path.parent for path in Path("/proc").glob("[0-9]*/environ") if self._is_program(path.parent)]
        for process in running:
            os.kill(int(process.name), signal.SIGKILL)
        gone = lambda: asyncio.sleep(0, not any(map(self._is_program, running)))  # noqa: E731 - a condition
        await wait_until(gone, what="the programs are gone")

    def _is_program(self, process: Path) -> bool:
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            mine = f"CVMFS_STANDIN={self._root}".encode() in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return False
        return mine and any(b"cvmfs_server" in argument for argument in arguments)

    async def reached(self, point: str) -> None:
        """Wait until the program hangs at a point."""
        reached = self._area.control / f"reached.{point}"
        await wait_until(lambda: asyncio.sleep(0, reached.exists()), what=f"{point} is reached")
        reached.unlink()
