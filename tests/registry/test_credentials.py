import asyncio
import base64
import json
import os
import shlex
from pathlib import Path

import pytest

from services.registry import credentials as module
from services.registry.credentials import Credential, DockerCredentials
from services.registry.errors import CredentialsError
from services.registry.reference import ImageReference


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def stored(directory: Path, **document: object) -> DockerCredentials:
    (directory / "config.json").write_text(json.dumps(document))
    return DockerCredentials.of_environment({"DOCKER_CONFIG": str(directory)})


def helper(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    program = directory / f"docker-credential-{name}"
    program.write_text(f'#!/bin/sh\necho "$@" > {shlex.quote(str(directory))}/arguments\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


async def find(credentials: DockerCredentials, text: str) -> Credential | None:
    return await credentials.find(ImageReference.parse(text))


async def test_a_credential_is_for_its_host_and_port_only(tmp_path: Path) -> None:
    credentials = stored(tmp_path, auths={"host:5000": {"auth": encoded("me:a:b")}, "other": {}})
    assert await find(credentials, "host:5000/x") == Credential(username="me", password="a:b")
    for text in ("host:5001/x", "host/x/y", "host.evil.example/x", "other/y", "x"):
        assert await find(credentials, text) is None


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("https://index.docker.io/v1/", "ubuntu"),
        ("docker.io", "ubuntu"),
        ("https://host.example/v2/", "host.example/x"),
        ("http://host.example", "HOST.example/x"),
        ("[::1]:5000", "[::1]:5000/x"),
    ],
)
async def test_keys_are_written_in_many_ways(tmp_path: Path, key: str, text: str) -> None:
    credentials = stored(tmp_path, auths={key: {"username": "me", "password": "x"}})
    assert await find(credentials, text) == Credential(username="me", password="x")


async def test_the_key_of_the_host_itself_wins(tmp_path: Path) -> None:
    auths = {"quay.example/team": {"auth": encoded("team:x")}, "quay.example": {"auth": encoded("me:y")}}
    assert await find(stored(tmp_path, auths=auths), "quay.example/a") == Credential(username="me", password="y")


@pytest.mark.parametrize(
    "document",
    [
        {"auths": None, "credHelpers": None, "credsStore": None},
        {"auths": {"host.example": None}},
        {"auths": {"host.example": {"auth": None, "username": None, "password": None, "email": None}}},
    ],
)
async def test_null_is_nothing_as_docker_has_it(tmp_path: Path, document: dict[str, object]) -> None:
    assert await find(stored(tmp_path, **document), "host.example/x") is None


async def test_an_empty_configuration_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("\n")
    assert await find(DockerCredentials(path=tmp_path / "config.json"), "host.example/x") is None


async def test_long_secrets_are_wrapped_by_some_programs(tmp_path: Path) -> None:
    auth = base64.encodebytes(b"me:" + b"x" * 100).decode()
    assert auth.count("\n") == 2
    credentials = stored(tmp_path, auths={"host.example": {"auth": auth}})
    assert await find(credentials, "host.example/x") == Credential(username="me", password="x" * 100)


async def test_tokens_are_read(tmp_path: Path) -> None:
    credentials = stored(
        tmp_path, auths={"a.b": {"auth": encoded("me:"), "identitytoken": "i"}, "c.d": {"registrytoken": "r"}}
    )
    assert await find(credentials, "a.b/x") == Credential(username="me", identity_token="i")
    assert await find(credentials, "c.d/x") == Credential(registry_token="r")


async def test_a_secret_is_not_in_the_text_form() -> None:
    credential = Credential(username="me", password="sesame", identity_token="sesame", registry_token="sesame")
    assert "sesame" not in repr(credential)


async def test_there_may_be_no_configuration(tmp_path: Path) -> None:
    assert await find(DockerCredentials.of_environment({"HOME": str(tmp_path)}), "a.b/x") is None


@pytest.mark.parametrize(
    "content",
    ['{"auths": {"a.b": {"auth": "sesame!"}}}', '{"auths": "sesame"}', '{"credsStore": "../sesame/x"}', "sesame"],
)
async def test_a_broken_configuration_is_named_and_not_shown(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CredentialsError) as caught:
        await find(DockerCredentials(path=tmp_path / "config.json"), "a.b/x")
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "sesame" not in str(caught.value)


async def test_a_helper_gets_the_server_and_gives_the_secret_by_pipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"""server=$(cat); echo "$server" > {tmp_path}/server
echo "{{\\"ServerURL\\": \\"$server\\", \\"Username\\": \\"me\\", \\"Secret\\": \\"sesame\\"}}" """
    helper(tmp_path, monkeypatch, "mine", script)
    credentials = stored(tmp_path, credHelpers={"host:5000": "mine"})
    assert await find(credentials, "host:5000/x") == Credential(username="me", password="sesame")
    assert (tmp_path / "server").read_text() == "host:5000\n"
    assert (tmp_path / "arguments").read_text() == "get\n"
    assert await find(credentials, "host:5001/x") is None


async def test_the_store_knows_every_host_and_identity_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"""cat > {tmp_path}/server; echo '{{"Username": "<token>", "Secret": "identity"}}'"""
    helper(tmp_path, monkeypatch, "all", script)
    credentials = stored(tmp_path, credsStore="all")
    assert await find(credentials, "ubuntu") == Credential(identity_token="identity")
    assert (tmp_path / "server").read_text() == "https://index.docker.io/v1/"


async def test_a_store_that_knows_nothing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, "none", "echo 'credentials not found in native keychain'; exit 1")
    credentials = stored(tmp_path, credsStore="none", auths={"a.b": {"auth": encoded("me:x")}})
    assert await find(credentials, "c.d/x") is None
    assert await find(credentials, "a.b/x") == Credential(username="me", password="x")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo sesame; echo sesame >&2; exit 3", "ended with status 3: see why with: echo a.b"),
        ("echo sesame", "gave an answer of another form"),
        ("exec yes sesame", "gave an answer of another form|ended with status -9"),
        ("echo sesame; exec sleep 1000", "gave no answer in 0.3 s: run it by hand"),
        ("setsid sleep 30 & exec sleep 1000", "gave no answer in 0.3 s: run it by hand"),
    ],
)
async def test_a_helper_that_fails_is_named_and_its_output_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(module, "_HELPER_TIMEOUT", 0.3 if "sleep" in script else 120.0)
    helper(tmp_path, monkeypatch, "bad", script)
    with pytest.raises(CredentialsError, match=said) as caught:
        async with asyncio.timeout(300):
            await find(stored(tmp_path, credsStore="bad"), "a.b/x")
    assert "docker-credential-bad" in str(caught.value)
    assert "sesame" not in str(caught.value)


async def test_a_helper_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"docker-credential-missing, which .* cannot be run: .*: install it"):
        await find(stored(tmp_path, credsStore="missing"), "a.b/x")
