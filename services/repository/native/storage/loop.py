"""An event loop in a thread of its own, for blocking code that uses an asynchronous client."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["LoopThread"]

_Result = TypeVar("_Result")


class LoopThread:
    """A context manager that runs an event loop.

    Parameters
    ----------
    name
        Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Self:
        begun: Future[asyncio.AbstractEventLoop] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(begun,), name=self._name)
        self._thread.start()
        self._loop = begun.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, begun: "Future[asyncio.AbstractEventLoop]") -> None:
        # The loop is closed here as well: another one may run in the thread that ends the context.
        with asyncio.Runner() as runner:
            begun.set_result(runner.get_loop())
            runner.run(self._wait())

    async def _wait(self) -> None:
        await self._stop.wait()

    def call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run something in the loop and wait for it; any thread but the loop's own may."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # where this thread has been interrupted, nobody waits for it any more
            raise
