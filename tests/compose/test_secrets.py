"""`make secrets`, as root and as somebody else, and how services get what it makes, or generated ones."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from services.converter.hints.endpoints import Endpoints
from services.registry.reference import ImageReference
from services.registry.settings import RegistrySettings
from tests.compose.conftest import VARIANTS, Read
from tests.compose.conftest import handed_out as given
from tests.support.compose import CHECKOUT

Make = Callable[..., str]
HandOut = Callable[..., "subprocess.CompletedProcess[str]"]

_SECRETS = {
    "converter_endpoints",
    "converter_token",
    "database_password",
    "docker_config",
    "event_token",
    "grafana_password",
    "minio_env",
    "publisher_projects",
    "registry_configuration",
    "registry_webhook_token",
    "seaweedfs_event_token",
    "seaweedfs_users",
    "sync_token",
    *(f"{user}_{kind}_key" for user in ("store_admin", "uploader", "agent") for kind in ("access", "secret")),
}


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


@pytest.fixture
def hand_out(tmp_path: Path) -> HandOut:
    """Does what the service `secrets` does, with directories of the test in the place of its volumes."""
    script = (CHECKOUT / "docker" / "hand-out-secrets").read_text()
    for place in ("project", "var/lib/secrets", "handed-out"):
        assert f"/{place}" in script
        (tmp_path / place).mkdir(parents=True)
        script = script.replace(f"/{place}", str(tmp_path / place))
    program = tmp_path / "hand-out-secrets"
    program.write_text(script)
    program.chmod(0o755)

    def run(*lines: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        for line in lines:
            (tmp_path / "handed-out" / line.split()[0]).mkdir(exist_ok=True)
        path = f"{CHECKOUT / 'docker'}:{os.environ['PATH']}"
        return subprocess.run(
            [program, *lines], env={"PATH": path, **settings}, capture_output=True, text=True, check=False, timeout=300
        )

    return run


@pytest.fixture
def handed_out(tmp_path: Path) -> Callable[[], dict[str, dict[str, str]]]:
    def read() -> dict[str, dict[str, str]]:
        return {
            directory.name: {path.name: path.read_text() for path in directory.iterdir()}
            for directory in (tmp_path / "handed-out").iterdir()
        }

    return read


def _secrets(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (directory / "secrets").iterdir()}


def _give(directory: Path, **secrets: str) -> None:
    (directory / "project" / "secrets").mkdir(mode=0o700, exist_ok=True)
    for name, text in secrets.items():
        (directory / "project" / "secrets" / name).write_text(text)


def test_every_secret_that_a_variant_hands_out_is_made(make: Make, tmp_path: Path, read: Read) -> None:
    make()
    variants = [[], *([variant] for variant in VARIANTS)]
    lines = [line for names in variants for line in given(read(*names)["services"]).values()]
    assert {name for _, *names in lines for name in names} == _secrets(tmp_path).keys() == _SECRETS


@pytest.mark.parametrize("user", [0, 1000])
def test_they_are_readable_to_whoever_made_them_only(make: Make, tmp_path: Path, user: int) -> None:
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, user, user)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent.is_relative_to(Path(os.environ["TMPDIR"]).parent):
            parent.chmod(0o711)
    make(user=user)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    found = {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in (tmp_path / "secrets").iterdir()}
    assert found == {(user, 0o400)}


def test_secrets_are_long_and_all_different(make: Make, tmp_path: Path) -> None:
    make()
    values = [text for name, text in _secrets(tmp_path).items() if name.endswith(("_key", "_token", "_password"))]
    independent = [text for text in values if not text.endswith("\n")]
    assert len(set(independent)) == len(independent) == 12
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
    anonymous = users.pop("anonymous")
    assert anonymous == {"name": "anonymous", "actions": ["Read:cvmfs"]}
    assert users.keys() == {"store_admin", "uploader", "agent"}
    for name, identity in users.items():
        keys = {"accessKey": secrets[f"{name}_access_key"], "secretKey": secrets[f"{name}_secret_key"]}
        assert identity["credentials"] == [keys]
    assert users["uploader"]["actions"] == ["Read:other-layers", "Write:other-layers"]


def test_publisher_converter_and_registry_know_each_other(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    secrets = _secrets(tmp_path)
    (project,) = yaml.safe_load(secrets["publisher_projects"])
    assert project == {"project": "converter", "token_file": "/run/secrets/converter_token", "names": ["*"]}

    endpoints = asyncio.run(Endpoints(tmp_path / "secrets" / "converter_endpoints").current())
    assert {name: endpoint.kind for name, endpoint in endpoints.items()} == {
        "registry": "distribution",
        "sync": "sync",
    }
    assert endpoints["sync"].secret.get_secret_value() == secrets["sync_token"]
    configuration = yaml.safe_load(secrets["registry_configuration"])
    (notified,) = configuration["notifications"]["endpoints"]
    assert notified["url"] == "http://converter:8481/v1/hints/registry"
    token = endpoints["registry"].secret.get_secret_value()
    assert notified["headers"] == {"Authorization": [f"Bearer {token}"]}
    # At a lower level the registry logs what it sends.
    assert configuration["log"]["level"] == "warn"

    monkeypatch.setenv("REGISTRY_DOCKER_CONFIG", str(tmp_path / "secrets" / "docker_config"))
    credentials = RegistrySettings.load().options().credentials
    assert asyncio.run(credentials.find(ImageReference.parse("registry.example.org/physics/tool:v1"))) is None


_PUBLISHER = "publisher 10001 event_token agent_secret_key"
_STORE = "store 10003 minio_env"


def test_where_none_are_given_they_are_generated_once(
    hand_out: HandOut, handed_out: Callable[[], dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    first = hand_out(_PUBLISHER, _STORE)
    assert (first.returncode, first.stderr) == (0, "")
    before = handed_out()
    assert {service: set(secrets) for service, secrets in before.items()} == {
        "publisher": {"event_token", "agent_secret_key"},
        "store": {"minio_env"},
    }
    assert f"TOKEN_PUBLISHER={before['publisher']['event_token']}\n" in before["store"]["minio_env"]
    for service, user in (("publisher", 10001), ("store", 10003)):
        files = [path.stat() for path in (tmp_path / "handed-out" / service).iterdir()]
        assert {(file.st_uid, file.st_gid, file.st_mode & 0o7777) for file in files} == {(user, user, 0o400)}
    assert (tmp_path / "var/lib/secrets").stat().st_mode & 0o7777 == 0o700
    assert not (tmp_path / "project" / "secrets").exists()
    again = hand_out(_PUBLISHER, _STORE)
    assert (again.returncode, handed_out()) == (0, before)
    values = [value for secrets in before.values() for value in secrets.values()]
    assert [value for value in values if value.strip() in first.stdout + again.stdout] == []


def test_what_is_derived_follows_the_bucket(
    hand_out: HandOut, handed_out: Callable[[], dict[str, dict[str, str]]]
) -> None:
    hand_out("store 10003 seaweedfs_users", LAYER_STORE_BUCKET="one")
    before = json.loads(handed_out()["store"]["seaweedfs_users"])["identities"]
    hand_out("store 10003 seaweedfs_users", LAYER_STORE_BUCKET="two")
    after = json.loads(handed_out()["store"]["seaweedfs_users"])["identities"]
    credentials = [[identity.get("credentials") for identity in identities] for identities in (before, after)]
    assert credentials[0] == credentials[1]
    assert (before[1]["actions"][0], after[1]["actions"][0]) == ("Read:one", "Read:two")


def test_files_win_over_generated_ones(
    hand_out: HandOut, handed_out: Callable[[], dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    hand_out(_PUBLISHER, _STORE)
    _give(tmp_path, event_token="given token", agent_secret_key="given key", minio_env="given environment\n")
    ended = hand_out(_PUBLISHER, _STORE)
    assert ended.returncode == 0
    assert "the generated ones in the volume are not used" in ended.stdout
    assert handed_out() == {
        "publisher": {"event_token": "given token", "agent_secret_key": "given key"},
        "store": {"minio_env": "given environment\n"},
    }


@pytest.mark.parametrize("content", [None, ""])
def test_files_are_never_mixed_with_generated_ones(
    hand_out: HandOut, handed_out: Callable[[], dict[str, dict[str, str]]], tmp_path: Path, content: str | None
) -> None:
    hand_out(_PUBLISHER, _STORE)
    before = handed_out()
    _give(tmp_path, event_token="given token", minio_env="given environment\n")
    if content is not None:
        _give(tmp_path, agent_secret_key=content)
    ended = hand_out(_PUBLISHER, _STORE)
    assert ended.returncode == 1
    assert "secrets/agent_secret_key is missing or empty" in ended.stderr
    assert handed_out() == before


def test_generated_ones_do_not_silently_follow_files(
    hand_out: HandOut, handed_out: Callable[[], dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    _give(tmp_path, event_token="given token", agent_secret_key="given key")
    hand_out(_PUBLISHER)
    before = handed_out()
    for empty in (True, False):
        if empty:
            for path in (tmp_path / "project" / "secrets").iterdir():
                path.unlink()
        else:
            (tmp_path / "project" / "secrets").rmdir()
        ended = hand_out(_PUBLISHER)
        assert ended.returncode == 1
        assert "put them back, or make new ones by make secrets" in ended.stderr
        assert handed_out() == before


def test_a_service_keeps_nothing_that_it_does_not_read_any_more(
    hand_out: HandOut, handed_out: Callable[[], dict[str, dict[str, str]]]
) -> None:
    hand_out("publisher 10001 event_token agent_secret_key uploader_secret_key")
    hand_out(_PUBLISHER)
    assert handed_out()["publisher"].keys() == {"event_token", "agent_secret_key"}


def test_a_file_that_is_added_hands_out_further_secrets(
    hand_out: HandOut, handed_out: Callable[[], dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    (tmp_path / "handed-out" / "database").mkdir()
    also = "database 999 database_password\npublisher 10001 database_password\n"
    ended = hand_out(_PUBLISHER, HAND_OUT_ALSO=also)
    assert (ended.returncode, ended.stderr) == (0, "")
    secrets = handed_out()
    assert secrets["publisher"].keys() == {"event_token", "agent_secret_key", "database_password"}
    assert secrets["database"] == {"database_password": secrets["publisher"]["database_password"]}
    file = (tmp_path / "handed-out" / "database" / "database_password").stat()
    assert (file.st_uid, file.st_mode & 0o7777) == (999, 0o400)
    # Without that file again.
    hand_out(_PUBLISHER)
    assert handed_out()["publisher"].keys() == {"event_token", "agent_secret_key"}


def test_an_attempt_that_was_killed_is_repeated(
    hand_out: HandOut, handed_out: Callable[[], dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    hand_out(_PUBLISHER, _STORE)
    before = handed_out()
    kept = tmp_path / "var/lib/secrets/secrets"
    # What a kill leaves: half of a file under its other name, both names of a whole one, and things not made yet.
    (kept / ".agent_secret_key.new").write_text("ha")
    (kept / ".event_token.new").hardlink_to(kept / "event_token")
    (kept / "minio_env").unlink()
    (tmp_path / "handed-out" / "publisher" / ".new").write_text("ha")
    (tmp_path / "handed-out" / "publisher" / ".new").chmod(0)
    (tmp_path / "handed-out" / "store" / "minio_env").unlink()
    ended = hand_out(_PUBLISHER, _STORE)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert handed_out() == before
    assert [path.name for path in kept.iterdir() if path.name.endswith(".new")] == []


def test_the_keys_of_a_store_that_is_there_are_not_generated(
    hand_out: HandOut, handed_out: Callable[[], dict[str, dict[str, str]]], read: Read
) -> None:
    needed = read("s3")["services"]["secrets"]["environment"]["STORE_KEYS_NEEDED"]
    ended = hand_out(_PUBLISHER, STORE_KEYS_NEEDED=needed)
    assert ended.returncode == 1
    assert "put agent_access_key, agent_secret_key, uploader_access_key and uploader_secret_key into" in ended.stderr
    assert handed_out() == {"publisher": {}}
