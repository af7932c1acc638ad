"""The memory that a process uses, and the most that it has used."""

from pathlib import Path

__all__ = ["peak_memory", "resident_memory"]


def peak_memory(process: int | str = "self") -> int:
    """Return the largest resident set that a process has had, in bytes; this one's by default.

    getrusage(2) would include the peak of whoever started it.
    """
    return _bytes(process, "VmHWM:")


def resident_memory(process: int | str = "self") -> int:
    """Return the resident set of a process, in bytes."""
    return _bytes(process, "VmRSS:")


def _bytes(process: int | str, name: str) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    (kilobytes,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith(name))
    return kilobytes * 1024
