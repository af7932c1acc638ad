"""Touching file systems that are served over a network and may never answer."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from services.common.repository_name import RepositoryName
from services.common.work_threads import begin_in_thread
from services.node.errors import RepositoryError

__all__ = ["RepositoryIo", "Step"]

_T = TypeVar("_T")

Step = Callable[[], None]
"""What long work calls before each of its look-ups."""

_HUNG_LIMIT: Final = 64
"""Look-ups that may hang in one repository before further ones are not even tried: each holds a thread."""


class RepositoryIo:
    """Runs file operations on repositories, each in a thread of its own, so that a hung one blocks nobody else.

    The threads are daemons: a look-up that hangs does not keep this program from ending.

    Parameters
    ----------
    timeout
        Longest time for one look-up, or one step of longer work, in seconds.
    """

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._hung: defaultdict[RepositoryName, int] = defaultdict(int)

    async def run(self, function: Callable[[], _T], *repositories: RepositoryName) -> _T:
        """Run a blocking look-up.

        Parameters
        ----------
        function
            What is run; it goes on in its thread when nobody waits for it any more.
        repositories
            What it touches, one repository at least.

        Raises
        ------
        RepositoryError
            It did not end in time, or too many before it have not ended yet.
        """
        return await self.follow(lambda _step: function(), *repositories)

    async def follow(self, function: Callable[[Step], _T], *repositories: RepositoryName) -> _T:
        """Run blocking work of many look-ups, for as long as it gets on.

        Parameters
        ----------
        function
            What is run. It calls what it is given before each look-up, which raises when nobody waits any more.
        repositories
            What it touches, one repository at least.

        Raises
        ------
        RepositoryError
            A look-up did not end in time, or too many before it have not ended yet.
        """
        self._refuse_hung(repositories)
        shown = " or ".join(sorted(repositories))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        steps, late = 0, False

        def step() -> None:
            nonlocal steps
            steps += 1
            if future.done():
                raise RepositoryError("nobody waits for this any more")

        def end(outcome: Callable[[], None]) -> None:
            if late:
                self._count(repositories, -1)
            if not future.done():
                outcome()

        def look() -> None:
            try:
                result = function(step)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who waits
                outcome: Callable[[], None] = partial(future.set_exception, error)
            else:
                outcome = partial(future.set_result, result)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(end, outcome)

        begin_in_thread(look)
        if await self._ended(future, lambda: steps):
            return future.result()
        late = True
        self._count(repositories, 1)
        raise RepositoryError(f"repository {shown} does not answer within {self._timeout:g} s: the CVMFS client hangs")

    def hung(self) -> dict[RepositoryName, int]:
        """Return how many look-ups in each repository hang now."""
        return dict(self._hung)

    async def _ended(self, future: asyncio.Future[_T], steps: Callable[[], int]) -> bool:
        """Wait for the end of work, and tell whether it came; it does not where no step has been made for too long."""
        seen = -1
        try:
            while not future.done() and seen != steps():
                seen = steps()
                await asyncio.wait((future,), timeout=self._timeout)
            return future.done()
        finally:
            future.cancel()

    def _refuse_hung(self, repositories: Sequence[RepositoryName]) -> None:
        for name in repositories:
            if self._hung[name] >= _HUNG_LIMIT:
                raise RepositoryError(
                    f"repository {name} does not answer, {self._hung[name]} look-ups before this one hang: "
                    "the CVMFS client hangs"
                )

    def _count(self, repositories: Sequence[RepositoryName], change: int) -> None:
        for name in repositories:
            self._hung[name] += change
