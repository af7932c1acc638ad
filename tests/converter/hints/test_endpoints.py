"""The file of endpoints is checked as a whole, read again when it changes, and never shown."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from services.converter.hints.dialects.parse import Kind
from services.converter.hints.endpoints import Endpoint, Endpoints
from services.converter.hints.errors import EndpointsError
from tests.support.hints import SECRETS, hint, write_endpoints

_GOOD: dict[str, Any] = {"name": "one", "kind": "harbor", "registry": "harbor.example.org", "secret": "s3cret" * 4}


async def _read(path: Path) -> Mapping[str, Endpoint]:
    return await Endpoints(path).current()


def _write(path: Path, *endpoints: object) -> Path:
    path.write_text(yaml.safe_dump({"endpoints": list(endpoints)}))
    return path


async def test_endpoints_have_registry_secret_and_names(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "quay").write_text("of-a-file-0123456789\n")
    path = _write(
        tmp_path / "endpoints.yaml",
        _GOOD | {"names": ["harbor.example.org/physics/*", "harbor.example.org/hep/tool:v?"]},
        {"name": "quay", "kind": "quay", "secret_file": "secrets/quay"},
    )
    endpoints = await _read(path)
    assert endpoints["quay"].kind is Kind.QUAY
    assert endpoints["quay"].registry == "quay.io"
    assert endpoints["quay"].secret.get_secret_value() == "of-a-file-0123456789"
    assert endpoints["quay"].covers(hint("quay.io/any/thing:v1"))
    covers = endpoints["one"].covers
    assert covers(hint("harbor.example.org/physics/a/b:v1"))
    assert covers(hint("harbor.example.org/physics/a"))
    assert covers(hint("harbor.example.org/hep/tool:v1"))
    assert not covers(hint("harbor.example.org/hep/tool:v10"))
    assert not covers(hint("harbor.example.org/hep/tool"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "gitea"}, "endpoints.0.kind: Input should be 'distribution', 'harbor'"),
        ({"name": "../a"}, "endpoints.0.name"),
        ({"name": "a" * 65}, "endpoints.0.name"),
        ({"registry": None}, "needs the registry"),
        ({"registry": "https://harbor.example.org"}, "no HOST[:PORT]"),
        ({"registry": "harbor.example.org/project"}, "no HOST[:PORT]"),
        ({"kind": "sync"}, "a sync endpoint has no registry"),
        ({"secret": None}, "either secret or secret_file"),
        ({"secret_file": "one"}, "either secret or secret_file"),
        ({"secret": "tooshort"}, "the secret of one has fewer than 16 characters"),
        ({"secret": None, "secret_file": "none"}, "secret_file of one: cannot read"),
        ({"names": []}, "endpoints.0.names"),
        ({"tokens": []}, "endpoints.0.tokens: Extra inputs are not permitted"),
    ],
)
async def test_a_mistake_is_told_with_its_place_and_without_the_secret(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    endpoint = {key: value for key, value in (_GOOD | changes).items() if value is not None}
    path = _write(tmp_path / "endpoints.yaml", endpoint)
    with pytest.raises(EndpointsError) as error:
        await _read(path)
    assert told in str(error.value)
    assert str(path) in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"endpoints: [{secret: s3cret-0123456789, }}", "not YAML (line 1, column"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"", "the file: "),
        (b"- s3cret", "the file: "),
        (b"#" * (1 << 20) + b"#", "more than 1048576 bytes"),
        (yaml.safe_dump({"endpoints": [_GOOD, _GOOD]}).encode(), "two endpoints have the name one"),
    ],
)
async def test_a_file_of_another_form_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_bytes(content)
    with pytest.raises(EndpointsError) as error:
        await _read(path)
    assert told in str(error.value)
    assert "s3cret" not in str(error.value)


async def test_what_changes_is_read_again_and_a_mistake_leaves_what_was_good(tmp_path: Path) -> None:
    path, secret = tmp_path / "endpoints.yaml", tmp_path / "secret"
    secret.write_text("first-0123456789abc")
    by_file = {"secret": None, "secret_file": "secret"}
    write_endpoints(path, harbor=by_file)
    endpoints = Endpoints(path)

    async def harbors() -> str:
        return (await endpoints.current())["harbor"].secret.get_secret_value()

    assert await harbors() == "first-0123456789abc"
    assert await endpoints.current() is await endpoints.current()
    _replace(secret, "second-0123456789ab")
    assert await harbors() == "second-0123456789ab"
    with capture_logs() as logs:
        _replace(path, "endpoints: 7")
        assert await harbors() == "second-0123456789ab"
        assert await harbors() == "second-0123456789ab"
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert endpoints.problem is not None
    write_endpoints(path, harbor=by_file, quay={"name": "renamed"})
    assert {"renamed", "harbor"} <= (await endpoints.current()).keys()
    assert endpoints.problem is None
    path.unlink()
    assert await harbors() == "second-0123456789ab"
    assert "cannot be read" in endpoints.problem


async def test_a_first_version_with_a_mistake_is_an_error(tmp_path: Path) -> None:
    endpoints = Endpoints(tmp_path / "endpoints.yaml")
    with pytest.raises(EndpointsError, match="cannot be read"):
        await endpoints.current()
    write_endpoints(tmp_path / "endpoints.yaml")
    assert (await endpoints.current()).keys() == SECRETS.keys()


def _replace(path: Path, content: str) -> None:
    path.with_suffix(".new").write_text(content)
    os.replace(path.with_suffix(".new"), path)
