"""How many cores this process can keep busy, for those who start something for each of them."""

import os
from pathlib import Path
from typing import Final

__all__ = ["usable_cores"]

_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_UNIFIED: Final = "0::/"
"""What the membership in the hierarchy of version 2 begins with."""


def usable_cores(*, cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Return how many cores there are for this process, at least 1: what is started beyond them only waits.

    That is those that it may run on, and no more than the time that its control group and those above it get: a
    container's CPU limit. A part of a core counts as one. The files are those of the kernel's
    Documentation/admin-guide/cgroup-v2.rst; a limit that a control group of version 1 sets does not count.

    Parameters
    ----------
    cgroups
        Where control groups are mounted.
    membership
        Names the control group of this process.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        lines = membership.read_text().splitlines()
    except FileNotFoundError:  # a kernel without control groups
        return cores
    for line in lines:
        if line.startswith(_UNIFIED):
            group = cgroups / line.removeprefix(_UNIFIED)
            limits = (_limit(above) for above in (group, *group.parents) if above.is_relative_to(cgroups))
            return min([cores, *(limit for limit in limits if limit is not None)])
    return cores


def _limit(group: Path) -> int | None:
    """Return how many cores' time a control group gets, rounded up; None where it has no limit."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except FileNotFoundError:  # the hierarchy's root, or one without this controller
        return None
    return None if quota == "max" else -(-int(quota) // int(period))
