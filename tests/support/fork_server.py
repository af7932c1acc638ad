"""Processes that begin with everything imported: they are forked from one that has it."""

from multiprocessing.context import ForkServerContext
from typing import Final

import pytest

from harness.forked import Forks
from harness.processes import Service

__all__ = ["FORKS", "processes", "pytest_configure"]

_KILLED: Final = (
    "tests.support.directory_killed",
    "tests.support.images_killed",
    "tests.support.native_killed",
    "tests.support.node_killed",
    "tests.support.publishers",
    "tests.support.store_killed",
)
"""What the tests of kills run."""

FORKS: Final = Forks(more=_KILLED)
"""What all of them are forked of."""


def pytest_configure() -> None:
    """Have services forked; what a start of their own takes and does is for the tests of their processes."""
    Service.forks = FORKS


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Starts functions in processes that need not import anything anew."""
    return FORKS.context
