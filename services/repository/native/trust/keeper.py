"""Keeps the whitelist from expiring: signs it anew where the master key is, and says long before where it is not."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import timedelta
from typing import Final

import structlog

from services.common.threads import in_thread
from services.repository.native.errors import NativeError
from services.repository.native.trust.errors import WhitelistError
from services.repository.native.trust.renewal import WhitelistFile, WhitelistState

__all__ = ["WhitelistKeeper"]

_log = structlog.get_logger(__name__)

_RENEW_BEFORE: Final = timedelta(days=20)
"""How long before its expiry a whitelist is signed anew: ten days after it was, which leaves twenty for repairs."""
_WARN_BEFORE: Final = timedelta(days=10)
"""How long before its expiry everybody is told."""
_INTERVAL: Final = 3600.0


class WhitelistKeeper:
    """Looks after the whitelist of one repository.

    Parameters
    ----------
    whitelist
        The whitelist.
    threads
        Where blocking work runs.
    leads
        Tells whether it is this publisher that signs it anew: one of several does.
    interval
        Seconds between two looks.
    sleep
        Waits for so many seconds.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        whitelist: WhitelistFile,
        threads: Executor,
        leads: Callable[[], bool],
        interval: float = _INTERVAL,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._whitelist = whitelist
        self._threads = threads
        self._leads = leads
        self._interval = interval
        self._sleep = sleep
        self._clock = clock
        self.until: float | None = None
        """When clients stop to trust the repository, in seconds since the epoch; None where that is not known."""
        self._renewable = False
        self._problem: str | None = None

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await self._sleep(self._interval)

    async def look(self) -> None:
        """Find out when the whitelist expires, and sign it anew in time; what fails is tried again at the next look."""
        try:
            state = await in_thread(self._threads, lambda _stop: self._look())
        except NativeError as error:
            self._problem = str(error)
            _log.error("whitelist cannot be used or signed", reason=str(error))
            return
        self._problem = None
        self._note(state)

    def _look(self) -> WhitelistState:
        state = self._whitelist.state()
        self._note(state)
        if state.renewable and state.left < _RENEW_BEFORE and self._leads():
            state = self._whitelist.renew()
            _log.info("whitelist signed anew", expires=state.expires.isoformat())
        return state

    def _note(self, state: WhitelistState) -> None:
        self.until = state.expires.timestamp()
        self._renewable = state.renewable

    def warning(self) -> str | None:
        """Say what an administrator should do before clients refuse the repository; None while there is time."""
        if self._problem is not None:
            return f"the whitelist cannot be used or signed: {self._problem}"
        left = self._left()
        if left is None or left > _WARN_BEFORE:
            return None
        how = (
            "signing it anew has failed, see the log"
            if self._renewable
            else "the master key is not here: sign a whitelist where it is, and install it with thin-repository resign"
        )
        return f"clients refuse the repository in {max(left, timedelta()) / timedelta(days=1):.1f} days: {how}"

    async def check(self) -> None:
        """Make sure that clients accept the whitelist now.

        Raises
        ------
        WhitelistError
            They do not.
        """
        left = self._left()
        if left is not None and left <= timedelta():
            raise WhitelistError(f"the whitelist has expired: {self.warning()}")
        if left is None and self._problem is not None:
            raise WhitelistError(self._problem)

    def _left(self) -> timedelta | None:
        return None if self.until is None else timedelta(seconds=self.until - self._clock())
