"""Run a program in a control group: `python -m harness.sandbox.cgroup CGROUP PROGRAM [ARGUMENT...]`.

Docker's managed plugins get control groups below that of containerd, whatever `--cgroup-parent` says. With containerd
in one of the sandbox's, theirs end with the sandbox, too.
"""

import os
import sys
from pathlib import Path
from typing import Final

from harness.sandbox.traces import CGROUP_ROOT

__all__ = ["enter"]

_CPUSET: Final = ("cpuset.cpus", "cpuset.mems")
"""What a group of this controller must have before it takes a process (version 1)."""


def enter(cgroup: str) -> None:
    """Move this process into a control group, made where it is missing, in every hierarchy.

    Parameters
    ----------
    cgroup
        Path from the root of the hierarchies.
    """
    for root in (CGROUP_ROOT, *CGROUP_ROOT.iterdir()):
        if root.is_dir() and not root.is_symlink() and (root / "cgroup.procs").exists() and _is_hierarchy(root):
            group = _make(root, Path(cgroup.strip("/")))
            (group / "cgroup.procs").write_text("0")


def _is_hierarchy(root: Path) -> bool:
    """Whether this is the top of a hierarchy, and not a group in the only one (version 2)."""
    return os.path.ismount(root)


def _make(root: Path, name: Path) -> Path:
    for path in (*reversed(name.parents), name):
        group = root / path
        group.mkdir(exist_ok=True)
        for setting in _CPUSET:
            if (group / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((group.parent / setting).read_text())
    return root / name


if __name__ == "__main__":
    enter(sys.argv[1])
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is what is wanted
