"""A second publisher with something of the first one's is refused at once, and changes nothing."""

from pathlib import Path

import pytest

from harness.s3 import S3Access
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.publisher import REPOSITORY, PublisherProcess, make_layer, upload


def _native(directory: Path) -> dict[str, str]:
    create_repository(
        name=REPOSITORY,
        storage=DirectoryStorage(directory / "repository"),
        keys=KeyFiles(directory / "keys", REPOSITORY),
        chosen=RepositoryFormat(),
        meta={},
    )
    return {
        "PUBLISHER_REPOSITORY_KIND": "native",
        "PUBLISHER_KEYS": str(directory / "keys"),
        "PUBLISHER_DIRECTORY": str(directory / "repository"),
    }


@pytest.mark.parametrize("kind", ["directory", "native"])
@pytest.mark.parametrize("shared", ["state", "spool"])
async def test_a_second_publisher_is_refused(bucket: S3Access, tmp_path: Path, kind: str, shared: str) -> None:
    settings = {"PUBLISHER_SWEEP_INTERVAL": "0.2"} | (_native(tmp_path) if kind == "native" else {})
    first = PublisherProcess(tmp_path / "first", bucket, settings)
    common = getattr(first, shared)
    other = PublisherProcess(tmp_path / "second", bucket, {**settings, f"PUBLISHER_{shared.upper()}": str(common)})
    archive, another = make_layer(tmp_path, "layer"), make_layer(tmp_path, "another")
    async with first.running(), other.ended():
        # By then it has put away what an earlier publisher may have left.
        await upload(bucket, archive)
        await first.published(archive)
        left = common / "fetched-just-now"
        left.write_bytes(b"the first one's")
        await other.refused(f"another publisher has the {shared} {common}: stop it first (process {first.daemon.pid} ")
        assert left.read_bytes() == b"the first one's"
        left.unlink()
        await upload(bucket, another)
        await first.published(another)
    async with other.running():
        pass


async def test_a_publisher_that_was_killed_keeps_nobody_out(bucket: S3Access, tmp_path: Path) -> None:
    publisher = PublisherProcess(tmp_path / "publisher", bucket, _native(tmp_path))
    async with publisher.ended():
        await publisher.start()
        await publisher.kill()
    async with publisher.running():
        pass
