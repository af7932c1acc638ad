"""Opens a transaction and claims it for the publisher, as one process that outlives a publisher that is killed.

`python -m services.repository.cvmfs_server.opener PUBLISHER FLAG MARKER TOKEN PROGRAM ARGUMENTS...`: the intention is
recorded; if the program, which opens the transaction, succeeds, the transaction is claimed and the marker file is
written into its area. Were the publisher itself to do that, a kill between the two would leave a transaction that
nobody could tell from a stranger's. What is left by a kill of all of them is told by the intention.
"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from services.repository.cvmfs_server.claim import claim
from services.repository.cvmfs_server.intention import Beating, IntentionFile

__all__ = ["MARKER_XATTR", "main"]

MARKER_XATTR: Final = "user.publisher"
"""Extended attribute of the marker: it shows in the published tree if the repository keeps such attributes."""

_BEAT: Final = 0.25
"""Seconds between two renewals of the intention."""


def main() -> int:
    """Record the intention, run the program, claim the transaction, write the marker; return the program's status."""
    publisher, flag, marker, token, *command = sys.argv[1:]
    try:
        return _open(int(publisher), Path(flag), marker, token, command)
    except OSError as error:
        # The publisher shows this as what keeps it from publishing.
        places = f"{os.path.dirname(flag)} or {os.path.dirname(marker)}"
        sys.stderr.write(f"whose the transaction is cannot be written to {places}: {error.strerror}\n")
        return 1


def _open(publisher: int, flag: Path, marker: str, token: str, command: list[str]) -> int:
    asked: list[None] = []
    # Whoever ends the program ends this process as well, which is to see what became of it.
    signal.signal(signal.SIGTERM, lambda *_: asked.append(None))
    intention = IntentionFile(flag).record(token)
    if os.getppid() != publisher:
        # A publisher that is started after a kill waits for whom it knows of; it may have looked before the record.
        intention.withdraw()
        sys.stderr.write("the publisher has ended before a transaction was opened\n")
        return 1
    status = _run(command, intention)
    if status == 0:
        claim(flag, token)
        intention.withdraw()
        os.makedirs(os.path.dirname(marker), mode=0o755, exist_ok=True)
        temporary = f"{marker}.new"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(token)
            _mark(file.fileno())
        os.rename(temporary, marker)
    elif status == errno.EEXIST or (status > 0 and not asked):
        # It has come to its own end. If a transaction is open all the same, somebody else may have been in its way.
        intention.withdraw()
    return status if status >= 0 else 128 - status


def _run(command: list[str], intention: Beating) -> int:
    with subprocess.Popen(command) as program:
        while True:
            try:
                return program.wait(_BEAT)
            except subprocess.TimeoutExpired:
                intention.renew()


def _mark(descriptor: int) -> None:
    try:
        os.setxattr(descriptor, MARKER_XATTR, b"kept")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # where no attribute can be had, none is kept, and that shows
            raise


if __name__ == "__main__":
    sys.exit(main())
