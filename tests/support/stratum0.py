"""A machine that `cvmfs_server` writes a repository on, by the stand-in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sandbox import Sandbox
from tests.support.cvmfs_server.standin import StandIn
from tests.support.mounts import unmount_all_below
from tests.support.publisher import REPOSITORY


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandIn]:
    """A machine with the stand-in for `cvmfs_server` and one repository."""
    Sandbox.current()
    standin = StandIn(tmp_path / "stratum0", REPOSITORY)
    standin.create()
    yield standin
    standin.end()
    unmount_all_below(tmp_path)
