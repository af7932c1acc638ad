"""`make secrets`, as root and as somebody else."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compose.conftest import VARIANTS, Read
from tests.support.compose import CHECKOUT

Make = Callable[..., str]

_OWNERS = {"minio_env": 10003, "seaweedfs_users": 10003, "seaweedfs_event_token": 10003, "grafana_password": 472}
_SUITE = 10001


@pytest.fixture
def make(tmp_path: Path) -> Make:
    (tmp_path / "docker").mkdir()
    shutil.copy(CHECKOUT / "docker" / "make-secrets", tmp_path / "docker")
    shutil.copy(CHECKOUT / "Makefile", tmp_path)

    def run(user: int = 0) -> str:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "make", "secrets"]
        ended = subprocess.run(
            command, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
        )
        assert ended.stderr == ""
        return ended.stdout

    return run


def _secrets(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (directory / "secrets").iterdir()}


def test_every_secret_that_a_variant_mounts_is_made(make: Make, tmp_path: Path, read: Read) -> None:
    make()
    variants = [[], *([variant] for variant in VARIANTS)]
    mounted = {Path(secret["file"]) for names in variants for secret in read(*names)["secrets"].values()}
    assert {path.name for path in mounted if path.parent.name == "secrets"} == _secrets(tmp_path).keys()


def test_each_belongs_to_the_user_who_reads_it_and_to_nobody_else(make: Make, tmp_path: Path) -> None:
    make()
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    found = {path.name: (path.stat().st_uid, path.stat().st_mode & 0o777) for path in (tmp_path / "secrets").iterdir()}
    assert found == {name: (_OWNERS.get(name, _SUITE), 0o400) for name in found}


def test_who_cannot_give_files_away_hides_them_in_a_directory(make: Make, tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 1000, 1000)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent.is_relative_to(Path(os.environ["TMPDIR"]).parent):
            parent.chmod(0o711)
    make(user=1000)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o444}


def test_secrets_are_long_and_all_different(make: Make, tmp_path: Path) -> None:
    make()
    values = [text for name, text in _secrets(tmp_path).items() if name.endswith(("_key", "event_token", "_password"))]
    independent = [text for text in values if not text.endswith("\n")]
    assert len(set(independent)) == len(independent) == 8
    assert {len(text) for text in independent} == {20, 24, 40}


def test_nothing_is_overwritten_and_what_is_missing_is_made(make: Make, tmp_path: Path) -> None:
    make()
    before = _secrets(tmp_path)
    said = make()
    assert _secrets(tmp_path) == before
    assert said.splitlines()[-1].startswith("secrets: nothing was overwritten")
    (tmp_path / "secrets" / "event_token").unlink()
    make()
    after = _secrets(tmp_path)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"event_token"}


def test_the_stores_know_the_same_users_and_token(make: Make, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LAYER_STORE_BUCKET=other-layers\n")
    make()
    secrets = _secrets(tmp_path)
    assert secrets["minio_env"].splitlines() == [
        f"MINIO_ROOT_USER={secrets['store_admin_access_key']}",
        f"MINIO_ROOT_PASSWORD={secrets['store_admin_secret_key']}",
        f"MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_PUBLISHER={secrets['event_token']}",
    ]
    assert secrets["seaweedfs_event_token"].strip() == secrets["event_token"]
    users = {identity["name"]: identity for identity in json.loads(secrets["seaweedfs_users"])["identities"]}
    for name, identity in users.items():
        keys = {"accessKey": secrets[f"{name}_access_key"], "secretKey": secrets[f"{name}_secret_key"]}
        assert identity["credentials"] == [keys]
    assert users["uploader"]["actions"] == ["Read:other-layers", "Write:other-layers"]
