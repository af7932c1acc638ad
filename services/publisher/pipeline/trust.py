"""For how long clients trust the repository: its whitelist expires, and then nobody can mount it.

That of a native repository has a keeper (`services/repository/native/trust/keeper.py`), which signs it anew as well.
"""

import asyncio
from typing import Final, Protocol

import structlog

from services.repository.errors import RepositoryError

__all__ = ["TrustWatch"]

_log = structlog.get_logger(__name__)

_INTERVAL: Final = 3600
"""Seconds between two looks: whitelists are valid for weeks."""


class SignedElsewhere(Protocol):
    """A repository that is signed by somebody else."""

    async def trusted_until(self) -> float | None:
        """Return when clients stop to trust it, in seconds since the epoch; None where that is not known.

        Raises
        ------
        RepositoryError
            It cannot be found out now.
        """


class TrustWatch:
    """Looks now and then until when clients trust a repository that somebody else signs."""

    def __init__(self, repository: SignedElsewhere) -> None:
        self._repository = repository
        self.until: float | None = None
        """When they stop to, in seconds since the epoch; None where that is not known."""

    async def run(self) -> None:
        """Look until cancelled; what fails is tried again at the next time."""
        while True:
            try:
                self.until = await self._repository.trusted_until()
            except RepositoryError as error:
                _log.warning("it is not known for how long clients trust the repository", reason=str(error))
            await asyncio.sleep(_INTERVAL)
