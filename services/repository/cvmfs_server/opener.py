"""Opens a transaction and claims it for the publisher, as one process that outlives a publisher that is killed.

`python -m services.repository.cvmfs_server.opener FLAG MARKER TOKEN PROGRAM ARGUMENTS...`: if the program, which
opens the transaction, succeeds, the transaction is claimed and the marker file is written into its area. Were the
publisher itself to do that, a kill between the two would leave a transaction that nobody could tell from a stranger's.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from services.repository.cvmfs_server.claim import claim

__all__ = ["MARKER_XATTR", "main"]

MARKER_XATTR: Final = "user.publisher"
"""Extended attribute of the marker: it shows in the published tree if the repository keeps such attributes."""


def main() -> int:
    """Run the program, claim the transaction, write the marker, return the program's exit status."""
    flag, marker, token, *command = sys.argv[1:]
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        claim(Path(flag), token)
        os.makedirs(os.path.dirname(marker), mode=0o755, exist_ok=True)
        temporary = f"{marker}.new"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(token)
            _mark(file.fileno())
        os.rename(temporary, marker)
    return status if status >= 0 else 128 - status


def _mark(descriptor: int) -> None:
    try:
        os.setxattr(descriptor, MARKER_XATTR, b"kept")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # where no attribute can be had, none is kept, and that shows
            raise


if __name__ == "__main__":
    sys.exit(main())
