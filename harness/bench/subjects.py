"""Who is compared."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from harness.bench.measure import Target
from harness.engine import Engine

__all__ = ["Subject", "bound", "within"]


async def _nothing(_image: str) -> None:
    """Wait for nothing: the work ends when its command does."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An engine and the form of the base image on it."""

    name: str
    """For the result."""
    engine: Engine
    """Where the work is done."""
    image: str
    """The base image, regular or thin."""
    settled: Callable[[str], Awaitable[None]] = _nothing
    """Waits until nobody works on a committed image any more, so that this is not counted as the next one's time."""


def bound(
    subjects: Sequence[Subject], once: Callable[[Subject], Awaitable[float]]
) -> dict[str, Callable[[], Awaitable[float]]]:
    """Bind the work of a row to each subject."""

    def bind(subject: Subject) -> Callable[[], Awaitable[float]]:
        return lambda: once(subject)

    return {subject.name: bind(subject) for subject in subjects}


def within(subjects: Sequence[Subject], limit: float) -> tuple[Target, ...]:
    """Make targets: everybody's ratio to the first subject."""
    return tuple(Target(subject=subject.name, over=subjects[0].name, limit=limit) for subject in subjects[1:])
