"""Snapshotters that are killed and started again, quickly: `python -m tests.support.snapshotter_killed`.

A line on standard input has one killed, and the next one started, whose number is written. The line says at which
change of a file it is to kill itself; 0 for none. They are forked from a process that has loaded the programs.
"""

import os
import signal
import sys

from services.node.configuration import Configuration
from services.snapshotter.process import run
from services.snapshotter.settings import SnapshotterSettings
from tests.support.killed import Steps


def main() -> None:
    """Start one for each line, and none at the end."""
    configuration = Configuration.load(SnapshotterSettings)
    child = None
    for line in sys.stdin:
        _kill(child)
        child = os.fork()
        if child == 0:
            Steps(int(line), more=("os.mkdir", "os.chmod")).armed = True
            os._exit(run(configuration))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    _kill(child)


def _kill(child: int | None) -> None:
    if child is not None:
        os.kill(child, signal.SIGKILL)
        # Only then have all its threads ended, and its socket with them.
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
