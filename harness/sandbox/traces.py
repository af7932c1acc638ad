"""Removal of what daemons leave: processes, mounts, control groups, the workspace directory."""

import ctypes
import os
import subprocess
import time
from pathlib import Path

__all__ = ["CGROUP_ROOT", "kill_cgroup", "remove_cgroups", "remove_workspace", "unmount_below"]

CGROUP_ROOT = Path("/sys/fs/cgroup")
"""Where control groups are mounted: one hierarchy (version 2), or one directory for each controller (version 1)."""

_MNT_DETACH = 2

_CGROUP_PATIENCE = 5.0
"""Seconds that an emptied control group may take until the kernel lets it go."""


def _hierarchies(cgroup: str) -> list[Path]:
    """Return the directories of one control group in every hierarchy that has it."""
    name = cgroup.strip("/")
    roots = [CGROUP_ROOT, *(path for path in CGROUP_ROOT.glob("*") if path.is_dir() and not path.is_symlink())]
    return [root / name for root in roots if (root / name).is_dir()]


def _processes(cgroup: str) -> set[int]:
    """Return the processes in a control group and below it."""
    found: set[int] = set()
    for top in _hierarchies(cgroup):
        for directory, _, _ in os.walk(top):
            try:
                found.update(map(int, (Path(directory) / "cgroup.procs").read_text().split()))
            except OSError:
                # It went away, or is of a kind (threaded, version 2) that holds no processes.
                continue
    return found


def kill_cgroup(cgroup: str) -> None:
    """End every process in a control group and below it with SIGKILL.

    Raises
    ------
    TimeoutError
        Processes are still there after a few seconds.
    """
    deadline = time.monotonic() + _CGROUP_PATIENCE
    while left := _processes(cgroup):
        for pid in left:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of the control group {cgroup} do not end: {sorted(left)}")
        time.sleep(0.01)


def remove_cgroups(cgroup: str) -> None:
    """Remove a control group and all below it, in every hierarchy; their processes have ended.

    Raises
    ------
    OSError
        One of them is still in use after a few seconds.
    """
    deadline = time.monotonic() + _CGROUP_PATIENCE
    for top in _hierarchies(cgroup):
        for directory, _, _ in os.walk(top, topdown=False):
            while True:
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    pass
                except OSError:
                    # The kernel accounts for ended processes a little later.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
                    continue
                break


def remove_workspace(workspace: Path) -> None:
    """Remove the workspace directory, with trees of any depth in it.

    Raises
    ------
    OSError
        Something of it is left.
    """
    ended = subprocess.run(["rm", "-rf", "--one-file-system", "--", workspace], stderr=subprocess.PIPE, check=False)
    if ended.returncode:
        raise OSError(f"{workspace} could not be removed: {ended.stderr.decode(errors='replace').strip()[-500:]}")


def unmount_below(directory: Path) -> None:
    """Detach every mount below a directory, in this mount namespace, so that only its own files are removed with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    prefix = os.fsencode(directory) + b"/"
    points = [
        # The kernel writes white space and backslashes in octal.
        line.split()[4].decode("unicode_escape").encode("latin-1")
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines()
    ]
    for point in reversed([point for point in points if point.startswith(prefix)]):
        # A mount below one that was detached has gone with it, so a failure says nothing.
        libc.umount2(point, _MNT_DETACH)
