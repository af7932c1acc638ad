"""How much memory something takes in this process."""

from pathlib import Path
from types import TracebackType
from typing import Self

from harness.peak_memory import peak_memory

__all__ = ["Memory"]


class Memory:
    """A context manager that measures the most memory that is taken in its context."""

    def __enter__(self) -> Self:
        # The peak is what is resident now from here on (proc_pid_clear_refs(5)).
        Path("/proc/self/clear_refs").write_text("5")
        self._before = peak_memory()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.taken = peak_memory() - self._before
        """Bytes that were taken at once, beyond those that were taken before."""
