"""What one of several publishers does, while it is this one's turn: it leads, and the others stand by."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

__all__ = ["Leadership"]


class Leadership:
    """The turn of this publisher.

    Parameters
    ----------
    take
        Returns a context that is entered when the turn of this publisher has come, and is left when it is over.
    """

    def __init__(self, take: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self._take = take
        self._leads = False

    @property
    def leads(self) -> bool:
        """Whether it is this publisher's turn."""
        return self._leads

    async def run(self, services: Iterable[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        """Wait for the turn, and run services as long as it lasts, or until cancelled.

        The turn is kept until all of them have ended: some finish what they have begun.

        Raises
        ------
        JournalError
            Other publishers may have their turn now, so this one must end.
        """
        async with self._take():
            self._leads = True
            try:
                async with asyncio.TaskGroup() as group:
                    for service in services:
                        group.create_task(service())
            finally:
                self._leads = False
