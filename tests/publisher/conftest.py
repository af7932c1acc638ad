"""What the publisher's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.s3 import S3Access
from harness.sandbox import Sandbox
from tests.support.cvmfs_server.standin import StandIn
from tests.support.mounts import unmount_all_below
from tests.support.publisher import REPOSITORY, PublisherProcess


@pytest.fixture
def publisher(tmp_path: Path, bucket: S3Access) -> PublisherProcess:
    """A publisher to a directory, not started."""
    return PublisherProcess(tmp_path / "publisher", bucket)


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandIn]:
    """A machine with the stand-in for `cvmfs_server` and one repository."""
    Sandbox.current()
    standin = StandIn(tmp_path / "stratum0", REPOSITORY)
    standin.create()
    yield standin
    unmount_all_below(tmp_path)
