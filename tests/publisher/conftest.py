"""What the publisher's tests share."""

from pathlib import Path

import pytest

from harness.s3 import S3Access
from tests.support.publisher import PublisherProcess


@pytest.fixture
def publisher(tmp_path: Path, bucket: S3Access) -> PublisherProcess:
    """A publisher to a directory, not started."""
    return PublisherProcess(tmp_path / "publisher", bucket)
