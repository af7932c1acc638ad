"""A directory served by FUSE, whose server can be stopped and killed."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["served", "stop"]


@contextmanager
def served(source: Path, point: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a directory read-only at a mount point by Debian's bindfs, as the client of a repository does."""
    point.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(["bindfs", "-f", "-o", "ro", str(source), str(point)]) as server:
        try:
            deadline = time.monotonic() + 120
            while not os.path.ismount(point):
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield server
        finally:
            server.kill()
            subprocess.run(["umount", "--lazy", str(point)], check=True)


def stop(server: int) -> None:
    """Stop a server, and return when none of its threads runs on.

    One that does might take a request yet, and who waits for a request that has been taken cannot be killed.
    """
    os.kill(server, signal.SIGSTOP)
    deadline = time.monotonic() + 120
    while not all(map(_is_stopped, Path("/proc").glob(f"{server}/task/*/stat"))):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _is_stopped(status: Path) -> bool:
    """Whether a thread, by its file in /proc, does not run on."""
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has ended
