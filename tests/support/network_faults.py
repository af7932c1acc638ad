"""Faults of the network between two that work, one after the other: when each shows, and when all goes on."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.processes import wait_until
from harness.reliability.figures import Chapter, Trial
from tests.support.fault_proxy import Condition, FaultProxy, Link

__all__ = ["BLACK_HOLE", "HALF_OPEN", "RESET", "SLOW", "WRONG", "Blow", "Pair"]


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault."""

    name: str
    condition: Condition | None
    """How the network is meanwhile; None if only the connections that are there are dead."""


SLOW: Final = Blow("latency of 50 ms, 1 MB/s", Condition(latency=0.05, rate=1e6))
RESET: Final = Blow("reset", Condition(resets=True))
BLACK_HOLE: Final = Blow("black hole", Condition(silent=True))
HALF_OPEN: Final = Blow("half-open", None)
WRONG: Final = Blow("wrong bytes", Condition(wrong=400))


@dataclass(kw_only=True)
class Pair:
    """Two that talk, and something for them to do.

    Parameters
    ----------
    subject
        Who they are, for docs/reliability.md.
    way
        What is between them.
    work
        Begins something that takes both of them, and does not wait for its end.
    shown
        Whether the fault is to be seen: an error names it, or readiness says so.
    done
        Whether all that was begun is done, and nothing else is.
    """

    subject: str
    way: Link | FaultProxy
    work: Callable[[], Awaitable[None]]
    shown: Callable[[], Awaitable[bool]]
    done: Callable[[], Awaitable[bool]]
    _tried: list[str] = field(default_factory=list)
    _shown: list[float] = field(default_factory=list)
    _recovery: list[float] = field(default_factory=list)

    async def outlive(self, blow: Blow) -> None:
        """Do something in spite of a fault that never shows: it is slower, or is tried again soon enough."""
        self._tried.append(blow.name)
        await self.work()
        self._strike(blow)
        began = time.monotonic()
        await wait_until(self.done, what=f"{self.subject}: all is done in spite of {blow.name}")
        self._recovery.append(time.monotonic() - began)
        await self.way.mend()

    async def suffer(self, blow: Blow) -> None:
        """Do something during a fault until it shows, and see it done after the fault."""
        self._tried.append(blow.name)
        self._strike(blow)
        began = time.monotonic()
        await self.work()
        await wait_until(self.shown, what=f"{self.subject}: {blow.name} shows")
        self._shown.append(time.monotonic() - began)
        await self.way.mend()
        began = time.monotonic()
        await wait_until(self.done, what=f"{self.subject}: all is done after {blow.name}")
        self._recovery.append(time.monotonic() - began)

    def trial(
        self, *, losses: dict[str, int], bound: float | None, recovery_bound: float, also: Sequence[str] = ()
    ) -> Trial:
        """Return what was found out.

        Parameters
        ----------
        losses
            What must not have happened, and how often it has.
        bound, recovery_bound
            Seconds in which a fault must show, and be recovered from.
        also
            Further faults that were tried.
        """
        return Trial(
            chapter=Chapter.NETWORK,
            subject=self.subject,
            tried=", ".join(dict.fromkeys([*self._tried, *also])),
            times=len(self._tried) + len(also),
            losses=losses,
            shown=tuple(self._shown),
            shown_bound=bound if self._shown else None,
            recovery=tuple(self._recovery),
            recovery_bound=recovery_bound,
        )

    def _strike(self, blow: Blow) -> None:
        if blow.condition is None:
            self.way.network.forget()
        else:
            self.way.network.become(blow.condition)
