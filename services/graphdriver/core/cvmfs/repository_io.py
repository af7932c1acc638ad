"""Touching file systems that are served over a network and may never answer."""

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from services.common.repository_name import RepositoryName
from services.graphdriver.errors import RepositoryError

__all__ = ["RepositoryIo"]

_T = TypeVar("_T")

_HUNG_LIMIT: Final = 64
"""Look-ups that may hang in one repository before further ones are not even tried: each holds a thread."""


class RepositoryIo:
    """Runs file operations on repositories, each in a thread of its own, so that a hung one blocks nobody else.

    The threads are daemons: a look-up that hangs does not keep this program from ending.

    Parameters
    ----------
    timeout
        Longest time for one look-up, in seconds.
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
        for name in repositories:
            if self._hung[name] >= _HUNG_LIMIT:
                raise RepositoryError(
                    f"repository {name} does not answer, {self._hung[name]} look-ups before this one hang: "
                    "the CVMFS client hangs"
                )
        shown = " or ".join(sorted(repositories))
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        late = False

        def end(outcome: Callable[[], None]) -> None:
            if late:
                self._count(repositories, -1)
            if not future.done():
                outcome()

        def look() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who waits
                outcome: Callable[[], None] = partial(future.set_exception, error)
            else:
                outcome = partial(future.set_result, result)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(end, outcome)

        threading.Thread(target=look, name=f"look into {shown}", daemon=True).start()
        try:
            return await asyncio.wait_for(future, self._timeout)
        except TimeoutError:
            late = True
            self._count(repositories, 1)
            raise RepositoryError(
                f"repository {shown} does not answer within {self._timeout:g} s: the CVMFS client hangs"
            ) from None

    def _count(self, repositories: Sequence[RepositoryName], change: int) -> None:
        for name in repositories:
            self._hung[name] += change
