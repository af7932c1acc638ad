"""A sandbox for private daemons: a command that can leave nothing behind and cannot touch the machine's own Docker.

`python -m harness.sandbox -- COMMAND` runs a command as root in mount, process, network and IPC namespaces of its own:

- `/run` is an empty tmpfs, so no socket, plugin or container of the machine's own Docker can be reached;
- `/dev` is read-only: its devices can be used, and not be replaced;
- the network holds nothing but a loopback interface, so a daemon started here cannot delete the machine's `docker0`;
  with `--network` it also has a way to the outside, for packages, through a program that the machine does not notice;
- the command's daemons and containers are children of process 1 of the namespace and die with it, whatever they do;
- mounts live in the mount namespace and go with it;
- temporary files go to one workspace directory, and control groups below one parent; both are removed at the end.

It ends when the command ends, or when whoever started it dies (also of SIGKILL).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["CGROUP_VARIABLE", "WORKSPACE_VARIABLE", "Sandbox", "SandboxError"]

WORKSPACE_VARIABLE = "HARNESS_WORKSPACE"
"""Environment variable that names the workspace directory to the command inside."""

CGROUP_VARIABLE = "HARNESS_CGROUP"
"""Environment variable that names the parent of all control groups to the command inside, such as `/thin-images-x1`."""


class SandboxError(Exception):
    """The sandbox cannot be set up, or a program that needs one runs outside; the text says what to do."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """The sandbox as the command inside sees it."""

    workspace: Path
    """Directory on a real file system that is removed at the end."""
    cgroup: str
    """Parent of all control groups of the sandbox, absolute within the hierarchy."""

    @classmethod
    def current(cls) -> Self:
        """Return the sandbox that this process runs in.

        Raises
        ------
        SandboxError
            It runs in none: a daemon started here could outlive it or touch the machine's own Docker.
        """
        try:
            return cls(workspace=Path(os.environ[WORKSPACE_VARIABLE]), cgroup=os.environ[CGROUP_VARIABLE])
        except KeyError:
            raise SandboxError(
                "private daemons run in a sandbox only: start it by make or `python -m harness.sandbox -- COMMAND`"
            ) from None
