"""What trials found out, as it is kept in files: one for each test, and docs/reliability.json for a whole run."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Chapter", "Curve", "Figures", "Trial", "gathered"]


class Chapter(StrEnum):
    """Under which heading of docs/reliability.md something stands, in this order."""

    KILLS = "kills"
    POWER = "power"
    NETWORK = "network"
    LOAD = "load"
    HOSTILE = "hostile"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trial(_Record):
    """Something that was tried, many times over; a row of the page."""

    chapter: Chapter
    subject: str = Field(min_length=1)
    """What it was done to, in a few words: `publisher, native repository in a bucket, PostgreSQL`."""
    tried: str = Field(min_length=1)
    """What was done: `kill -9 at a random moment while three layers a second arrive`."""
    times: int = Field(gt=0)
    """How often."""
    losses: dict[str, int] = Field(default_factory=dict)
    """What must not happen and how often it did: `layers lost`, `layers half visible`. A test fails if any is not 0."""
    seen: dict[str, int | float | str] = Field(default_factory=dict)
    """What else was counted or measured, with its unit in the name: `most memory of the driver, MB`."""
    shown: tuple[float, ...] = ()
    """Seconds until each fault was shown as an error, where it is shown."""
    shown_bound: float | None = None
    """Seconds that this must not exceed."""
    recovery: tuple[float, ...] = ()
    """Seconds from the end of each fault, or the restart after each kill, until everything went on by itself."""
    recovery_bound: float | None = None
    """Seconds that this must not exceed."""


class Curve(_Record):
    """What is better seen than read; a plot of the page."""

    chapter: Chapter
    title: str = Field(min_length=1)
    across: str = Field(min_length=1)
    """What the horizontal axis counts, with its unit."""
    up: str = Field(min_length=1)
    """What the vertical axis counts, with its unit."""
    lines: dict[str, tuple[tuple[float, float], ...]] = Field(min_length=1, max_length=4)
    """Points from left to right, by the name of their line."""


class Figures(_Record):
    """What a test, or a run, found out."""

    trials: tuple[Trial, ...] = ()
    curves: tuple[Curve, ...] = ()


def gathered(files: Iterable[Path]) -> Figures:
    """Put what tests have found out together, in the order of chapters and subjects. Blocks.

    Parameters
    ----------
    files
        What the tests have written.

    Raises
    ------
    pydantic.ValidationError
        A file is not one of these.
    """
    parts = [Figures.model_validate_json(file.read_bytes()) for file in files]
    order = list(Chapter)
    return Figures(
        trials=tuple(
            sorted(
                (trial for part in parts for trial in part.trials),
                key=lambda trial: (order.index(trial.chapter), trial.subject, trial.tried),
            )
        ),
        curves=tuple(
            sorted(
                (curve for part in parts for curve in part.curves),
                key=lambda curve: (order.index(curve.chapter), curve.title),
            )
        ),
    )
