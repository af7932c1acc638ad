"""Room on the disk for the changes that make room there.

What removes a snapshot writes a little first: its record goes, its directory gets another place. On a full disk not
even that could be done, and nothing could ever be removed. So a file keeps some room, and gives it up when it is
needed.
"""

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

import structlog

__all__ = ["Reserve"]

_log = structlog.get_logger(__name__)

_SIZE: Final = 8 << 20
"""Bytes: much more than a removal takes, since others want room at the same time."""


class Reserve:
    """A file that keeps room. All methods block.

    Parameters
    ----------
    path
        The file; made by `fill`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Take the room, unless the file has it; where there is none, a later call may find some."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _SIZE)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _log.warning("disk_full", path=str(self._path.parent))
            self.release()
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Give the room to whoever needs it."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
