"""Settings of access to registries, and what a client makes of them."""

import base64
import json
from pathlib import Path

import pytest

from services.common.settings import SettingsError
from services.registry.client import RegistryClient
from services.registry.credentials import Credential
from services.registry.errors import CredentialsError
from services.registry.mirrors import Mirror
from services.registry.options import RegistryOptions
from services.registry.reference import ImageReference
from services.registry.settings import RegistrySettings

AUTH = base64.b64encode(b"docker:d").decode()


def options(monkeypatch: pytest.MonkeyPatch, **variables: object) -> RegistryOptions:
    for name, value in variables.items():
        monkeypatch.setenv(f"REGISTRY_{name}", str(value))
    return RegistrySettings.load().options()


def test_the_defaults_are_those_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    found, default = options(monkeypatch), RegistryOptions()
    for name in ("insecure", "insecure_registries", "ca_file", "mirrors", "concurrency", "longest_wait"):
        assert getattr(found, name) == getattr(default, name)


def test_plain_http_and_mirrors_are_by_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    found = options(monkeypatch, PLAIN_HTTP="Local:5000", MIRRORS="docker.io=local:5000/hub, quay.io=m.example")
    assert [found.scheme(name) for name in ("local:5000", "LOCAL:5000", "local")] == ["http", "http", "https"]
    assert found.mirrors == {
        "registry-1.docker.io": Mirror("local", 5000, "hub/"),
        "quay.io": Mirror("m.example", None, ""),
    }


async def test_files_come_before_dockers_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {"a.example": {"auth": AUTH}, "b.example": {"auth": AUTH}}}))
    (tmp_path / "files/a.example").mkdir(parents=True)
    (tmp_path / "files/a.example/token").write_text("t")
    credentials = options(monkeypatch, DOCKER_CONFIG=config, CREDENTIALS=tmp_path / "files").credentials
    assert await credentials.find(ImageReference.parse("a.example/x")) == Credential(registry_token="t")
    known = await credentials.find(ImageReference.parse("b.example/x"))
    assert known == Credential(username="docker", password="d")
    assert known is not None
    assert str(config) in known.source
    assert await credentials.find(ImageReference.parse("c.example/x")) is None
    config.write_text(json.dumps({"auths": {}}))
    assert await credentials.find(ImageReference.parse("b.example/x")) is None
    config.unlink()
    with pytest.raises(CredentialsError, match=r"config.json is not there: it should say who the user is"):
        await credentials.find(ImageReference.parse("b.example/x"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PLAIN_HTTP", "http://host", "not the name or address of a registry"),
        ("MIRRORS", "quay.io", r"REGISTRY=MIRROR\[/PATH\]"),
        ("MIRRORS", "quay.io=m.example/Upper", "in lower case"),
        ("MIRRORS", "quay.io=m.example/..", "not the name of a repository"),
        ("MIRRORS", "docker.io=index.docker.io", "no mirror of itself"),
        ("CREDENTIALS", "/nonexistent", "not point to a directory"),
        ("DOCKER_CONFIG", "/nonexistent", "not point to a file"),
        ("CONCURRENCY", "0", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=rf"REGISTRY_{name}.*{said}"):
        options(monkeypatch, **{name: value})


async def test_a_client_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RegistryClient(options=options(monkeypatch)):
        pass
