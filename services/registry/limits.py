"""How many requests a registry gets at a time, and when it gets none, since it has asked for a pause.

Sources: RFC 9110, 10.2.3 (Retry-After); RFC 6585, 4 (429); Docker Hub's `ratelimit-limit` and `ratelimit-remaining`,
which count manifests that are read, and neither HEAD nor blobs (docs.docker.com/docker-hub/usage).
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from services.registry.errors import RegistryUnavailableError
from services.registry.http import Answer
from services.registry.refusals import retry_after

__all__ = ["Limits", "RegistryLimits"]

_log = structlog.get_logger(__name__)

_BUSY: Final = frozenset({429, 503})
"""What a registry says that has too much to do."""

_FIRST_PAUSE: Final = 0.5
_LAST_PAUSE: Final = 60.0
"""Pauses after such an answer that does not say how long, in seconds: twice as long after each further one."""

_LONGEST_PAUSE: Final = 3600.0
"""The longest pause that is kept, in seconds, whatever a registry asks for: it may be a mistake."""

_QUOTA = re.compile(r"\s*([0-9]{1,9})\s*(?:;.*?\bw\s*=\s*([0-9]{1,9}))?")
"""A number of requests and the seconds that it is for."""

_DEFAULT_WINDOW: Final = 21_600
"""Docker Hub's, in seconds."""


class RegistryLimits:
    """What one registry can take; shared by all requests to it.

    Parameters
    ----------
    registry
        Its name, for errors.
    concurrency
        Most requests at a time.
    patience
        Longest pause that a request waits for, in seconds.
    """

    def __init__(self, *, registry: str, concurrency: int, patience: float) -> None:
        self._registry = registry
        self._patience = patience
        self._places = asyncio.Semaphore(concurrency)
        self._clock = asyncio.get_running_loop().time
        self._free_at = 0.0
        self._counted_free_at = 0.0
        self._pause = _FIRST_PAUSE
        self._refusals = 0
        self._excused = False

    def excuse(self) -> None:
        """Let one request go although the registry wants a pause, which is over if that one succeeds."""
        self._excused = True

    @asynccontextmanager
    async def turn(self, what: str, *, counted: bool) -> AsyncIterator[None]:
        """Wait until a request may be sent; others may be sent again when the context is left.

        Parameters
        ----------
        what
            What the request is for, for errors.
        counted
            Whether it is one of those that registries ration.

        Raises
        ------
        RegistryUnavailableError
            The registry wants a longer pause than is waited for; the error says how long.
        """
        async with self._places:
            if self._excused and self._left(counted=counted) > 0:
                self._excused = False
                refusals = self._refusals
                yield
                if self._refusals == refusals:
                    self._free_at = self._counted_free_at = 0.0
                return
            while (pause := self._left(counted=counted)) > 0:
                if pause > self._patience:
                    raise RegistryUnavailableError(
                        f"{what}: {self._registry} wants no such request for {pause:.0f} s: try again then",
                        retry_after=pause,
                    )
                await asyncio.sleep(pause)
            yield

    def _left(self, *, counted: bool) -> float:
        until = max(self._free_at, self._counted_free_at) if counted else self._free_at
        return until - self._clock()

    def observe(self, answer: Answer) -> None:
        """Take note of what an answer says about how busy the registry is."""
        if answer.status in _BUSY:
            self.refused(answer.status, answer.headers.get("Retry-After"))
        elif self._pause != _FIRST_PAUSE:
            self._pause = max(self._pause / 2, _FIRST_PAUSE)
        remaining = answer.headers.get("ratelimit-remaining")
        if remaining is not None:
            self._observe_quota(remaining, answer.headers.get("ratelimit-limit", ""))

    def refused(self, status: int, asked: str | None) -> None:
        """Take note that the registry has too much to do, and of the Retry-After that it asks for, if it does."""
        self._refusals += 1
        told = retry_after(asked)
        pause = self._pause if told is None else told
        self._pause = min(self._pause * 2, _LAST_PAUSE)
        self._free_at = max(self._free_at, self._clock() + min(pause, _LONGEST_PAUSE))
        _log.info("the registry asks for a pause", registry=self._registry, status=status, seconds=pause)

    @property
    def is_calm(self) -> bool:
        """Whether nothing has to be learned from the registry's answers, as it gets no more than it can take."""
        return self._pause == _FIRST_PAUSE and self._counted_free_at == 0.0

    def _observe_quota(self, remaining: str, limit: str) -> None:
        left, whole = _QUOTA.match(remaining), _QUOTA.match(limit)
        if left is None:
            return
        if int(left[1]) > 0:
            self._counted_free_at = 0.0
            return
        self._refusals += 1
        window = int(left[2] or (whole and whole[2]) or _DEFAULT_WINDOW)
        # The window slides, so that on the average one request becomes free every so often.
        pause = min(window / max(1, int(whole[1]) if whole is not None else 1), _LONGEST_PAUSE)
        self._counted_free_at = self._clock() + pause
        _log.warning("the registry's rate limit is used up", registry=self._registry, seconds=pause)


class Limits:
    """What each registry can take.

    Parameters
    ----------
    concurrency, patience
        As of `RegistryLimits`.
    """

    def __init__(self, *, concurrency: int, patience: float) -> None:
        self._concurrency = concurrency
        self._patience = patience
        self._registries: dict[str, RegistryLimits] = {}

    def of(self, registry: str) -> RegistryLimits:
        """Return the one object for the registry at `HOST[:PORT]`; to be called while the event loop runs."""
        name = registry.lower()
        limits = self._registries.get(name)
        if limits is None:
            limits = self._registries[name] = RegistryLimits(
                registry=name, concurrency=self._concurrency, patience=self._patience
            )
        return limits
