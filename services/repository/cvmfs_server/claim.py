"""Whose the open transaction of a repository is.

`cvmfs_server` marks a repository in a transaction by a flag, an empty file in the repository's spool directory. Beside
it the publisher leaves a claim: its token, and which file the flag was. Flags are made anew for every transaction, so a
claim is void as soon as its own transaction has ended, and needs nobody to remove it.

The claim does not lie in the transaction's area: that is empty, or not mounted at all, after a restart of the machine,
and between the end of a publish and the mount of the new revision.
"""

from pathlib import Path
from typing import Final

from services.common.durable import replace_file

__all__ = ["claim", "claimant"]

_CLAIM: Final = "publisher-transaction"


def claim(flag: Path, token: str) -> None:
    """Claim the open transaction, so that the claim survives a loss of power.

    Parameters
    ----------
    flag
        The flag that `cvmfs_server` has made.
    token
        Names the transaction.
    """
    replace_file(flag.with_name(_CLAIM), f"{token} {_identity(flag)}".encode("ascii"))


def claimant(flag: Path) -> str | None:
    """Return the token by which the open transaction is claimed; nothing if it is not, or none is open."""
    try:
        token, _, identity = flag.with_name(_CLAIM).read_text(encoding="ascii").partition(" ")
        return token if identity == _identity(flag) else None
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _identity(flag: Path) -> str:
    status = flag.stat()
    return f"{status.st_ino} {status.st_mtime_ns}"
