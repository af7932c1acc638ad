"""Failures, hangs and garbage on demand: a test puts files into the control directory of a repository.

- `fail.POINT` fails there; the file's content is what is said.
- `hang.POINT` waits there until the file is gone; `reached.POINT` appears before.
- `garbage.COMMAND` makes a command write that many bytes of garbage first.
- `poison` holds a file name; a publish of anything of that name fails.
- `slow` holds seconds that a publish takes longer.
- `whitelist` is what `info` says of it.
- `unreachable` makes `info` fail; the file's content is the reason.
- `unanswering` holds seconds that the web server of the storage takes, for `info`, and for `list`, which asks those of
  all repositories.
"""

import os
import sys
import time
from pathlib import Path

__all__ = ["POINTS", "Control"]

POINTS = (
    "transaction.begin",  # nothing has been done
    "transaction.checked",  # no other transaction is open, this one is not yet
    "transaction.flagged",  # the transaction is open, nothing can be written yet
    "transaction.opened",  # the transaction is open, the program has not returned
    "publish.begin",  # nothing has been done
    "publish.sync",  # the publishing lock is held, nothing is visible
    "publish.committed",  # the new revision is visible to clients, the transaction is still open
    "publish.unmounted",  # the same, the changes have been dropped, and nothing is mounted here
    "publish.mounted",  # the new revision is mounted, the transaction is still open
    "publish.hook",  # the transaction is not open any more, the publishing lock is still held
    "publish.closed",  # all is done, the program has not returned
    "abort.begin",  # nothing has been done
    "abort.unmount",  # nothing has been done; where it fails, the exit status is 0 nevertheless
    "mount.begin",  # nothing has been done
)
_POLL = 0.01


class Control:
    """What a test wants of one repository."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def point(self, name: str) -> None:
        """Fail or hang here if a test wants it."""
        assert name in POINTS, name
        hang = self._directory / f"hang.{name}"
        if hang.exists():
            (self._directory / f"reached.{name}").touch()
            while hang.exists():
                time.sleep(_POLL)
        message = self.text(f"fail.{name}")
        if message is not None:
            print(message, file=sys.stderr)
            sys.exit(1)

    def garbage(self, command: str) -> None:
        """Write garbage if a test wants it."""
        size = int(self.text(f"garbage.{command}") or 0)
        while size > 0:
            size -= os.write(1, os.urandom(min(size, 1 << 16)))

    def text(self, name: str) -> str | None:
        """Return the content of a control file, if it is there."""
        try:
            return (self._directory / name).read_text().strip()
        except FileNotFoundError:
            return None
