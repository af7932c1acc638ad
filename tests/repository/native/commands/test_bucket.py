"""`thin-repository` about a repository in a bucket."""

import asyncio
import os
from pathlib import Path

import pytest

from harness.s3 import S3Access, s3_client
from services.repository.native.trust.keyring import KeyFiles
from tests.repository.native.conftest import NAME
from tests.support.thin_repository import thin_repository


@pytest.fixture
def environment(bucket: S3Access, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bucket.repository_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REPOSITORY_STORE_PREFIX", "cvmfs/")


@pytest.mark.usefixtures("environment")
async def test_a_repository_lives_in_a_bucket(bucket: S3Access, tmp_path: Path, keys: KeyFiles) -> None:
    def work() -> None:
        place = (NAME, "--keys", keys.key.parent, "--state", tmp_path / "state")
        assert thin_repository("create", *place, "--json").document["revision"] == 1
        assert thin_repository("create", *place).status == 1
        again = thin_repository("create", *place, "--if-absent", "--json")
        assert (again.status, again.document["revision"]) == (0, 1)
        assert thin_repository("tag", "add", *place, "first").status == 0
        tags = thin_repository("tag", "list", *place, "--json").document["tags"]
        assert [tag["name"] for tag in tags] == ["first", "trunk"]
        assert thin_repository("resign", *place).status == 0
        assert thin_repository("gc", *place, "--delete", "--json").document["objects"] == 0
        missing = thin_repository("tag", "list", NAME, "--keys", keys.key.parent)
        assert missing.status == 2
        assert "--state is" in missing.error

    await asyncio.to_thread(work)
    async with s3_client(bucket) as client:
        listed = await client.list_objects_v2(Bucket=bucket.bucket)
    names = {item["Key"] for item in listed["Contents"]}
    assert {"cvmfs/.cvmfspublished", "cvmfs/.cvmfswhitelist", "cvmfs/.cvmfsreflog"} <= names
    assert all(name.startswith("cvmfs/") for name in names)


async def test_a_bucket_that_cannot_be_reached_has_its_exit_status(
    tmp_path: Path, keys: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPOSITORY_STORE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("REPOSITORY_STORE_RETRY_SECONDS", "0.2")
    place = (NAME, "--keys", keys.key.parent, "--state", tmp_path / "state")
    ended = await asyncio.to_thread(thin_repository, "create", *place)
    assert (ended.status, "REPOSITORY_STORE_ACCESS_KEY is" in ended.error) == (2, True)
    for name in ("ACCESS_KEY", "SECRET_KEY"):
        monkeypatch.setenv(f"REPOSITORY_STORE_{name}", "swordfish")
    ended = await asyncio.to_thread(thin_repository, "create", *place)
    assert ended.status == 4
    assert "the connection failed" in ended.error
    assert "swordfish" not in ended.error
    assert os.listdir(tmp_path / "state")
    # What cannot be seen is not absent.
    assert (await asyncio.to_thread(thin_repository, "create", *place, "--if-absent")).status == 4
