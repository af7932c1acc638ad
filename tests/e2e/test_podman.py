"""podman runs, commits, builds, saves, pushes and pulls images of a store in a repository, which it can only read."""

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from harness.registry import Registry
from services.common.image_name import ImageName
from services.common.image_outputs import ImageOutputs, PodmanOutput
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.repository.directory.repository import DirectoryRepository
from services.repository.images import ImageDocuments
from tests.support.images import change, image_of_layers
from tests.support.podman import Podman, seen_by_clients, system_tree
from tests.support.publisher import make_layer

pytestmark = pytest.mark.asyncio(loop_scope="session")

_REPOSITORY = RepositoryName("podman.example.org")
_NAME = "registry.example.org/ns/tool:v1"


@dataclass(frozen=True)
class Site:
    """A repository with an image, as a client of it sees it."""

    podman: Podman
    repository: DirectoryRepository
    image: ImageDocuments
    store: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """The image has its system in one layer, and changes it in a second."""
    directory = tmp_path_factory.mktemp("podman")
    system_tree(directory / "base.tree")
    base = make_layer(directory, "base", {"etc/gone": "gone", "etc/hidden/old": "old", "kept": "kept"})
    top = make_layer(directory, "top", {"new": "new", "kept": "changed"})
    image = image_of_layers(
        _NAME,
        ("amd64", [base, top]),
        outputs=ImageOutputs(podman=PodmanOutput()),
        config={"Cmd": ["sh", "-c", "cat /new /kept"], "Env": ["GREETING=hello world"]},
    )
    root = directory / "repository"
    with ThreadPoolExecutor(4) as threads:
        async with DirectoryRepository(
            name=_REPOSITORY, root=root, layout=LayerLayout.FLAT, threads=threads
        ) as repository:
            await change(repository, layers=[base, top], put=[image])
            with seen_by_clients(root, _REPOSITORY) as seen:
                yield Site(Podman(directory / "user", [seen / "podmanStore"]), repository, image, seen / "podmanStore")


async def test_an_image_runs(site: Site) -> None:
    assert (await site.podman("run", "--rm", _NAME)).text == "newchanged"
    said = await site.podman("run", "--rm", _NAME, "sh", "-c", "echo $GREETING; cat /etc/gone")
    assert said.text == "hello world\ngone"


async def test_images_are_listed_with_their_digests(site: Site) -> None:
    (row,) = json.loads((await site.podman("image", "ls", "--format=json")).text)
    assert row["Names"] == [_NAME]
    assert row["ReadOnly"]
    print(row)
    name = ImageName(_NAME)
    (image,) = [await site.podman.inspect(_NAME)]
    print(image)
    by_digest = f"{name.registry}/{name.repository}@{image['Digest']}"
    assert (await site.podman("run", "--rm", by_digest)).text == "newchanged"
