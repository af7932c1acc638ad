"""The most memory that a process has used."""

from pathlib import Path

__all__ = ["peak_memory"]


def peak_memory(process: int | str = "self") -> int:
    """Return the largest resident set that a process has had, in bytes; this one's by default.

    getrusage(2) would include the peak of whoever started it.
    """
    status = Path(f"/proc/{process}/status").read_text()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return peak * 1024
