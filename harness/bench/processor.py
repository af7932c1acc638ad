"""What processes take of the processors."""

import os
from pathlib import Path
from typing import Final

__all__ = ["processor_seconds"]

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_USER: Final = 11
"""Place of `utime` in /proc/PID/stat (proc(5)), after the name in brackets; `stime` and both of its ended children
follow."""


def processor_seconds(pid: int) -> float:
    """Return what a process, and its children that have ended, have taken so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[_USER : _USER + 4])) / _TICKS
