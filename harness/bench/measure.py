"""Interleaved runs, medians, and what is made of them."""

import asyncio
import os
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Row", "Target", "compare"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a figure has to reach."""

    subject: str
    """Whose figure."""
    limit: float
    """Largest acceptable value: of the ratio to `over`, or where that is None of the figure itself."""
    over: str | None = None
    """The subject that the ratio is taken to."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the result."""

    name: str
    """What is measured."""
    samples: Mapping[str, list[float]]
    """Every figure of every subject, in the order they were taken."""
    unit: str = "s"
    """Unit of the figures."""
    targets: tuple[Target, ...] = field(default=())
    """What has to be reached; none where the row only informs."""

    def median(self, subject: str) -> float:
        """Return a subject's median."""
        return statistics.median(self.samples[subject])

    def reached(self, target: Target) -> float:
        """Return the value that a target limits."""
        value = self.median(target.subject)
        return value if target.over is None else value / self.median(target.over)


async def compare(
    name: str,
    subjects: Mapping[str, Callable[[], Awaitable[float]]],
    *,
    runs: int,
    targets: tuple[Target, ...] = (),
) -> Row:
    """Run every subject once to warm up and then `runs` times, in turns.

    Parameters
    ----------
    name
        Of the row.
    subjects
        What prepares, does and undoes the work once, and returns the seconds that the work itself took.
    runs
        Figures that count, of each subject.
    targets
        Of the row.
    """
    samples: dict[str, list[float]] = {subject: [] for subject in subjects}
    for turn in range(runs + 1):
        order = list(subjects) if turn % 2 == 0 else list(subjects)[::-1]
        for subject in order:
            await asyncio.to_thread(os.sync)
            seconds = await subjects[subject]()
            if turn:
                samples[subject].append(seconds)
    return Row(name=name, samples=samples, targets=targets)
