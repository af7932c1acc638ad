"""Who is compared."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.bench.measure import Target
from harness.engine import Engine
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor

__all__ = ["BASE_IMAGE", "THIN_IMAGE", "Subject", "bound", "regular_subjects", "thin_subject", "within"]

BASE_IMAGE: Final = "debian:trixie-slim"
THIN_IMAGE: Final = "debian:thin"


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


def regular_subjects(plain: Engine, suite: Engine, *, name: str) -> tuple[Subject, Subject]:
    """Return the base image as a regular one, under the engine that the suite is compared with, and under the suite.

    Parameters
    ----------
    name
        Of the first, for the result.
    """
    return (
        Subject(name=name, engine=plain, image=BASE_IMAGE),
        Subject(name="suite, regular", engine=suite, image=BASE_IMAGE),
    )


def thin_subject(suite: Engine, stratum0: Stratum0, directory: Path) -> Subject:
    """Return the base image as a thin one.

    Parameters
    ----------
    directory
        Where descriptors of committed images are put to be read.
    """

    async def settled(image: str) -> None:
        descriptor = await read_descriptor(suite, image, directory)
        await stratum0.visible(descriptor.layers[-1].id)

    return Subject(name="suite, thin", engine=suite, image=THIN_IMAGE, settled=settled)


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
