"""The stack of docker-compose.yml, on a real engine, built and started as the README says."""

import json
from pathlib import Path

import pytest

from tests.support.compose import ComposeStack
from tests.support.cvmfs_client import ClientView
from tests.support.publisher import make_layer

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _states(stack: ComposeStack) -> dict[str, str]:
    lines = (await stack.compose("ps", "--all", "--format=json")).text.splitlines()
    containers = [json.loads(line) for line in lines]
    return {
        container["Service"]: container["Health"] or f"{container['State']} {container['ExitCode']}"
        for container in containers
    }


def _shown(stack: ComposeStack, directory: Path) -> int:
    """Bring a directory up to date as a client of the repository server does, and return the revision."""
    with stack.reader() as reader:
        view = ClientView(reader, directory / "cvmfs")
        view.update()
        return view.revision


async def test_every_service_gets_healthy(compose_stack: ComposeStack) -> None:
    assert await _states(compose_stack) == {
        "seaweedfs": "healthy",
        "setup": "exited 0",
        "repository-create": "exited 0",
        "publisher": "healthy",
        "repository": "healthy",
    }


async def test_an_uploaded_layer_is_published_and_served(compose_stack: ComposeStack, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "first", {"etc/motd": "served"})
    await compose_stack.upload(archive)
    published = await compose_stack.published(archive.digest)
    assert _shown(compose_stack, tmp_path) == published["revision"]
    assert (tmp_path / "cvmfs" / archive.digest / "etc" / "motd").read_text() == "served"
