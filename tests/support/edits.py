"""Changes to a container's file system, made from outside, so that every storage driver gets exactly the same.

`python -m tests.support.edits PID` makes the demonstration's changes, without its large file, in the playground of the
container whose process is PID.
"""

import os
import sys

from harness.commands import run
from harness.demo import playground

__all__ = ["make_edits"]


async def make_edits(pid: int) -> None:
    """Make them in the container whose first process has this number."""
    await run(sys.executable, "-m", __spec__.name, str(pid))


def main() -> None:
    """Enter the container's file system and make the changes."""
    os.chroot(f"/proc/{int(sys.argv[1])}/root")
    os.chdir("/playground")
    os.umask(0o022)
    for name, change in playground.CHANGES.items():
        if "300 MB" not in name:
            change()
    playground._settle_times(frozenset({"./before-1970", "./after-2038"}))  # noqa: SLF001 - as its own main does


if __name__ == "__main__":
    main()
