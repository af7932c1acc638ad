"""The documentation of webhooks names what there is."""

import re
from pathlib import Path

import pytest
import yaml

from services.converter.hints.dialects.parse import Kind
from services.converter.hints.endpoints import Endpoints
from tests.support.registries import RegistryServer

_TEXT = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
_BLOCKS = re.findall(r"```yaml\n(.*?)```", _TEXT, re.DOTALL)


async def test_the_example_is_a_file_of_endpoints(tmp_path: Path) -> None:
    document = yaml.safe_load(_BLOCKS[0])
    (tmp_path / "secrets").mkdir()
    for endpoint in document["endpoints"]:
        (tmp_path / endpoint["secret_file"]).write_text("0123456789abcdef")
    (tmp_path / "endpoints.yaml").write_text(_BLOCKS[0])
    endpoints = await Endpoints(tmp_path / "endpoints.yaml").current()
    assert [endpoint.kind for endpoint in endpoints.values()] == [Kind.DISTRIBUTION, Kind.DOCKER_HUB, Kind.SYNC]


def test_every_kind_and_key_is_told_of() -> None:
    (row,) = re.findall(r"^\| `kind` \| (.*) \|$", _TEXT, re.MULTILINE)
    assert set(re.findall(r"`([a-z-]+)`", row)) == set(Kind)


@pytest.mark.parametrize("block", _BLOCKS)
def test_examples_are_yaml(block: str) -> None:
    assert yaml.safe_load(block)


async def test_the_example_is_taken_by_a_real_registry(tmp_path: Path) -> None:
    (endpoint,) = yaml.safe_load(_BLOCKS[1])["notifications"]["endpoints"]
    async with RegistryServer.run(tmp_path / "registry", notifications=[endpoint]) as registry:
        log = (registry.directory / "registry.log").read_text()
    assert "configuring endpoint converter" in log
