"""Work in threads, with a bound on what waits."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Self, TypeVar

from services.common.cores import usable_cores

__all__ = ["Workers"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_LEAST: Final = 16
"""Threads, however few the cores are: with a bucket most of their time is waiting for answers."""
_AHEAD: Final = 4
"""Pieces of work for every thread that are begun before the first one's result is taken."""


class Workers:
    """A context manager that ends its threads; work that has not begun when it is left through an error is dropped."""

    def __init__(self) -> None:
        self._number = max(_LEAST, usable_cores())

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(self._number, "check")
        return self

    def __exit__(self, *_failure: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def map(self, work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Iterate over the results in the order of the items, which are taken as there is room.

        Items that the results lead to may be appended to the iterable meanwhile, where it allows that.
        """
        pending: deque[Future[_Result]] = deque()
        iterator = iter(items)
        while True:
            while len(pending) < _AHEAD * self._number:
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                pending.append(self._threads.submit(work, item))
            if not pending:
                return
            yield pending.popleft().result()
