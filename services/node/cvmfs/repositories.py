"""What a repository is to the rest of the driver: a directory that is there while somebody uses it."""

import errno
from pathlib import Path
from typing import Final, Protocol

from services.common.repository_name import RepositoryName

__all__ = ["DEAD", "Repositories"]

DEAD: Final = (errno.ENOTCONN, errno.ESTALE, errno.ECONNABORTED)
"""What a look-up gives when the process behind a FUSE mount is gone."""


class Repositories(Protocol):
    """How a repository gets to be a directory."""

    def place(self, name: RepositoryName) -> Path:
        """Return the repository's root, wherever that is once it is mounted."""

    async def ensure(self, name: RepositoryName, *, holder: str) -> Path:
        """Return the repository's root, mounted and alive, and note that `holder` uses it.

        Raises
        ------
        RepositoryError
            It cannot be had; the text says what to do.
        """

    def claim(self, name: RepositoryName, *, holder: str) -> None:
        """Note a use that an earlier process of this program began."""

    def release(self, *, holder: str) -> None:
        """Note that `holder` uses no repository any more."""

    def adopt(self) -> None:
        """Take over what an earlier process of this program left mounted, once the users are known again."""

    async def shut_down(self) -> None:
        """Give up what this program mounted itself."""

    def in_use(self) -> dict[RepositoryName, int]:
        """Return the number of users of each repository that has any."""
