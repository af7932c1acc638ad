"""Credentials in a directory: which one counts, and what is none."""

from pathlib import Path

import pytest

from services.registry.credential_files import CredentialFiles
from services.registry.credentials import Credential
from services.registry.errors import CredentialsError
from services.registry.reference import ImageReference


def written(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name.replace("_", "-")).write_text(content)


async def find(directory: Path, text: str) -> Credential | None:
    return await CredentialFiles(directory=directory).find(ImageReference.parse(text))


async def test_the_longest_prefix_counts(tmp_path: Path) -> None:
    written(tmp_path / "quay.io/ns/team", username="team", password="t\n")
    written(tmp_path / "quay.io/other", token="o")
    (tmp_path / "quay.io/username").write_text("everybody")
    (tmp_path / "quay.io/password").write_text("e")
    everybody, team = Credential(username="everybody", password="e"), Credential(username="team", password="t")
    assert await find(tmp_path, "quay.io/ns/team/x") == team
    assert await find(tmp_path, "quay.io/ns/team") == team
    for name in ("quay.io/ns/teams", "quay.io/ns/x", "quay.io/x"):
        assert await find(tmp_path, name) == everybody
    assert await find(tmp_path, "quay.io/other/x") == Credential(registry_token="o")
    assert await find(tmp_path, "quay.io.evil.example/ns/team/x") is None


async def test_it_says_where_a_credential_is_and_not_what(tmp_path: Path) -> None:
    written(tmp_path / "quay.io/ns", username="me", password="sesame")
    credential = await find(tmp_path, "quay.io/ns/x")
    assert credential is not None
    assert credential.source == str(tmp_path / "quay.io/ns")
    assert "sesame" not in repr(credential)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("docker.io", "ubuntu"),
        ("registry.hub.docker.com/library", "docker.io/ubuntu"),
        ("host:5000", "host:5000/x"),
        ("host_5000", "HOST:5000/x"),
    ],
)
async def test_registries_are_written_in_several_ways(tmp_path: Path, place: str, name: str) -> None:
    written(tmp_path / place, identity_token="i")
    assert await find(tmp_path, name) == Credential(identity_token="i")
    assert await find(tmp_path, "other.example/x") is None


async def test_what_is_changed_counts_at_once(tmp_path: Path) -> None:
    written(tmp_path / "host.example", token="old")
    files = CredentialFiles(directory=tmp_path)
    reference = ImageReference.parse("host.example/x")
    assert await files.find(reference) == Credential(registry_token="old")
    (tmp_path / "host.example/token").write_text("new")
    assert await files.find(reference) == Credential(registry_token="new")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"username": "me"}, "holds username: a credential is username and password"),
        ({"username": "me", "password": "x", "token": "y"}, "holds password and token and username"),
        ({"username": "me", "password": ""}, "password has no bytes"),
        ({"username": "me\nyou", "password": "x"}, "characters that no credential has"),
        ({"token": "x" * 70_000}, "has 65537 bytes"),
    ],
)
async def test_half_of_a_credential_is_never_taken_for_none(tmp_path: Path, files: dict[str, str], said: str) -> None:
    written(tmp_path / "host.example/ns", **files)
    with pytest.raises(CredentialsError, match=f"host.example/ns.*{said}"):
        await find(tmp_path, "host.example/ns/x")


async def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    written(tmp_path / "host.example")
    (tmp_path / "host.example/token").write_bytes(b"\xff")
    with pytest.raises(CredentialsError, match="token is not UTF-8 text"):
        await find(tmp_path, "host.example/x")
    (tmp_path / "host.example/token").unlink()
    (tmp_path / "host.example/token").mkdir()  # a repository's, of this name
    assert await find(tmp_path, "host.example/x") is None
