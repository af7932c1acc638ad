"""What the demonstration prints while it runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Narrator"]


class Narrator:
    """Prints steps, and everything in them with the time it took."""

    def __init__(self) -> None:
        self._step = 0

    def step(self, title: str) -> None:
        """Begin a step."""
        self._step += 1
        print(f"\n{self._step}. {title}", flush=True)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Print the time that the block took; nothing where it fails, since the error says what happened."""
        started = time.perf_counter()
        yield
        self.say(what, time.perf_counter() - started)

    def say(self, what: str, seconds: float | None = None) -> None:
        """Print a line of the step."""
        print(f"   {'' if seconds is None else f'{seconds:8.2f} s':10}  {what}", flush=True)
