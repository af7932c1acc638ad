"""Tests that are short in `make test` and long in `make soak`, and what they find out for docs/reliability.md."""

import random
import re
from collections.abc import Generator
from pathlib import Path
from typing import Final, TypeVar

import pytest

from harness.reliability.figures import Curve, Figures, Trial
from services.common.durable import replace_file

__all__ = ["Soak", "pytest_addoption", "pytest_runtest_call", "soak"]

_Value = TypeVar("_Value")
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_.-]+")
"""What is not in names of files."""


class Soak:
    """How long a test goes on, and what it has found out.

    Parameters
    ----------
    full
        Whether this is `make soak`.
    seed
        What random moments and choices are drawn from, so that a run can be repeated.
    """

    def __init__(self, *, full: bool, seed: int) -> None:
        self.full = full
        self.random = random.Random(seed)  # noqa: S311 # moments, not secrets
        self._trials: list[Trial] = []
        self._curves: list[Curve] = []

    def pick(self, quick: _Value, full: _Value) -> _Value:
        """Return the one that is for this run: how often, how many, or for how many seconds."""
        return full if self.full else quick

    def record(self, found: Trial | Curve) -> None:
        """Keep what was found out, and fail if it is something that must not be.

        Parameters
        ----------
        found
            A row or a plot of docs/reliability.md.
        """
        if isinstance(found, Curve):
            self._curves.append(found)
            return
        lost = {name: count for name, count in found.losses.items() if count}
        assert not lost, f"{found.subject}, {found.tried}: {lost}"
        for what, times, bound in (
            ("shown", found.shown, found.shown_bound),
            ("recovered from", found.recovery, found.recovery_bound),
        ):
            assert bound is None or max(times) <= bound, (
                f"{found.subject}: {what} after {max(times):.1f} s, not {bound}"
            )
        self._trials.append(found)

    @property
    def figures(self) -> Figures:
        """What was found out so far."""
        return Figures(trials=tuple(self._trials), curves=tuple(self._curves))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the options of `make soak`."""
    group = parser.getgroup("soak", "faults and load")
    group.addoption("--soak", action="store_true", help="go on for as long as `make soak` does")
    group.addoption("--seed", type=int, default=0, help="draw other random moments and choices (default: 0)")
    group.addoption("--figures", metavar="DIRECTORY", help="write down what tests of faults and load find out")


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> Soak:
    """How long this test goes on; it records there what it finds out, which is written down if it passes."""
    options = request.config.option
    return Soak(full=options.soak, seed=options.seed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Write down what a test has found out that has come to its end."""
    yield
    directory = item.config.option.figures
    found = item.funcargs.get("soak") if isinstance(item, pytest.Function) else None
    if directory is not None and isinstance(found, Soak):
        name = _UNFIT.sub("-", item.nodeid.removeprefix("tests/soak/"))
        replace_file(Path(directory) / f"{name}.json", found.figures.model_dump_json(indent=1).encode())
