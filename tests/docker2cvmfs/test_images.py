"""Images that the publisher fetches by itself; the object store is not even known."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from services.common.layout import sidecar_path
from services.docker2cvmfs.images import image_name
from services.registry.reference import ImageReference
from tests.docker2cvmfs.conftest import LAYERS
from tests.support.commands import Ended, docker2cvmfs
from tests.support.image_site import ImagePublisher, push_image, sha256
from tests.support.publisher import REPOSITORY, TOKEN
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASKING: Mapping[str, str] = {"DOCKER2CVMFS_TOKEN": TOKEN}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RegistryServer]:
    async with RegistryServer.run(tmp_path_factory.mktemp("registry") / "server") as registry:
        yield registry


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def publisher(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ImagePublisher]:
    async with ImagePublisher.running(tmp_path_factory.mktemp("publisher")) as publisher:
        yield publisher


async def run(publisher: ImagePublisher, command: str, *arguments: object, env: Mapping[str, str] = ASKING) -> Ended:
    return await docker2cvmfs(
        command, "--insecure", *arguments, "--publisher", publisher.url, "--json", "--platform", "linux/amd64", env=env
    )


async def test_the_publisher_fetches_and_a_thin_image_is_made(
    registry: RegistryServer, publisher: ImagePublisher, tmp_path: Path
) -> None:
    name = await push_image(registry, "converted:1", LAYERS)
    ended = await run(publisher, "make-thin", name, REPOSITORY, "--output", tmp_path / "thin.tar")
    assert ended.status == 0, ended.errors
    made = json.loads(ended.out)
    assert made["published"] is True
    assert {layer["outcome"] for layer in made["layers"]} == {"fetched by the publisher"}
    assert (tmp_path / "thin.tar").exists()
    for layer in LAYERS:
        assert (publisher.root / sidecar_path(sha256(layer))).exists()
    image = await publisher.api.image(name)
    assert image is not None
    assert image.state == "published"

    again = await run(publisher, "publish", name, REPOSITORY)
    assert again.status == 0, again.errors
    assert {layer["outcome"] for layer in json.loads(again.out)["layers"]} == {"already published"}


async def test_what_the_publisher_cannot_fetch_is_said(registry: RegistryServer, publisher: ImagePublisher) -> None:
    name = await push_image(registry, "broken:1", [b"this is no tar archive" * 100])
    ended = await run(publisher, "publish", name, REPOSITORY)
    assert ended.status == 5
    assert f"{name} is not published: " in ended.errors
    assert "--via bucket" in ended.errors


async def test_an_output_is_made_by_the_publisher(registry: RegistryServer, publisher: ImagePublisher) -> None:
    name = await push_image(registry, "flat:1", LAYERS)
    ended = await run(publisher, "publish", name, REPOSITORY, "--output", "flat")
    assert ended.status == 0, ended.errors
    assert (publisher.root / name.path / ".singularity.d/runscript").exists()
    ended = await run(publisher, "publish", name, REPOSITORY, "--output", "flat", "--via", "bucket")
    assert ended.status == 2
    assert "--output needs --publisher and its token" in ended.errors


async def test_a_token_that_is_wrong_is_no_reason_for_another_way(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    name = await push_image(registry, "converted:1", LAYERS)
    ended = await run(publisher, "publish", name, REPOSITORY, env={"DOCKER2CVMFS_TOKEN": "0123456789abcdef-wrong"})
    assert ended.status == 5
    assert "0123456789abcdef-wrong" not in ended.errors
    ended = await run(publisher, "publish", name, REPOSITORY, "--via", "publisher", env={})
    assert ended.status == 2
    assert "DOCKER2CVMFS_TOKEN" in ended.errors


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        (f"quay.io/a@sha256:{'0' * 64}", f"quay.io/a@sha256:{'0' * 64}"),
        (f"quay.io/a:1@sha256:{'0' * 64}", "quay.io/a:1"),
    ],
)
async def test_an_image_is_called_what_people_call_it(text: str, name: str) -> None:
    assert image_name(ImageReference.parse(text)) == name
