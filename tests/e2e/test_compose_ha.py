"""Two publishers by docker-compose.ha.yml, started as the page says: either is killed in the middle of 500 layers.

PostgreSQL's image cannot be had here, so that Debian's package of it has its name; SeaweedFS is in MinIO's place.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import aiohttp
import pytest
import pytest_asyncio

from harness.engine import Engine
from harness.ports import free_ports
from harness.processes import wait_until
from services.common.archive.model import LayerArchive
from services.common.object_store.store import ObjectStore
from services.common.publisher_api import PublisherApi
from services.repository.native.reader.cache import CatalogCache
from services.repository.native.reader.catalog import CatalogReference
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.revision import Revision
from services.repository.native.records import ContentHash, ObjectKind
from tests.support.compose import CHECKOUT, ComposeStack, copy_checkout
from tests.support.database_image import build_database_image
from tests.support.documentation import commands_below
from tests.support.publisher import make_layer

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LAYERS: Final = 500
_HEADING: Final = "## Two publishers"
_BATCH: Final = 100
_SETTINGS: Final = f"""\
PUBLISHER_BATCH_LAYERS={_BATCH}
PUBLISHER_SWEEP_INTERVAL=5
REPOSITORY_STORE_LEASE_SECONDS=10
"""
"""More revisions than two, so that there is a middle; and no long waits."""
_WITH_SEAWEEDFS: Final = """\
docker() {
    local words=()
    for word; do
        if [ "$word" = docker-compose.ha.yml ]; then words+=(docker-compose.seaweedfs.yml -f); fi
        words+=("$word")
    done
    command docker "${words[@]}"
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(
    compose_stack: ComposeStack, builder: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ComposeStack]:
    """The page's commands were run, beside the stack that has made the images."""
    (port,) = free_ports(1)
    stack = ComposeStack(
        engine=builder,
        directory=tmp_path_factory.mktemp("ha") / "clone",
        variants=("seaweedfs", "ha"),
        settings={"COMPOSE_PROJECT_NAME": "cvmfs-thin-ha", "LISTEN_PUBLISHER_2": f"127.0.0.1:{port}"},
    )
    await asyncio.to_thread(copy_checkout, stack.directory)
    (stack.directory / ".env").write_text(_SETTINGS)
    configuration = json.loads((await stack.compose("config", "--format", "json")).stdout)
    image = configuration["services"]["database"]["image"]
    assert compose_stack.engine is builder
    await build_database_image(builder, image, tmp_path_factory.mktemp("database"))
    try:
        await stack.shell(_WITH_SEAWEEDFS + commands_below(CHECKOUT / "docs" / "stratum0.md", _HEADING), timeout=600)
        yield stack
    finally:
        await stack.compose("down", "--volumes", "--timeout", "1")


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Sequence[LayerArchive]:
    directory = tmp_path_factory.mktemp("layers")
    return [make_layer(directory, f"layer{number}") for number in range(_LAYERS)]


def _visible(revision: Revision) -> set[str]:
    """Return the digests of the layers that thin images find in a revision: the links to them in its root."""
    return {entry.name.decode() for entry in revision.list(b"") if entry.is_symlink}


def _newest(reader: RepositoryReader) -> set[str]:
    return _visible(reader.newest(reader.head()))


def _history(reader: RepositoryReader) -> list[set[str]]:
    """Return the layers of every revision but the first, which is empty; the newest one first."""
    revisions: list[set[str]] = []
    with CatalogCache(reader.source) as catalogs:
        revision = reader.newest(reader.head())
        while True:
            previous = ContentHash.parse(revision.properties(b"")["previous_revision"])
            if previous == ContentHash.null(previous.algorithm):
                return revisions
            revisions.append(_visible(revision))
            revision = Revision(reader.source, CatalogReference(b"", previous, None), catalogs=catalogs)


async def _upload(stack: ComposeStack, layers: Sequence[LayerArchive]) -> None:
    """Upload layers, eight at a time, as worker nodes do."""
    waiting = iter(layers)
    async with ObjectStore(settings=stack.access().settings) as store, asyncio.TaskGroup() as group:

        async def work() -> None:
            for layer in waiting:
                await store.upload(layer, repository=stack.repository)

        for _ in range(8):
            group.create_task(work())


async def _shows(stack: ComposeStack, number: int) -> None:
    """Wait until clients see as many layers."""

    async def shown() -> bool:
        with stack.reader() as reader:
            return len(await asyncio.to_thread(_newest, reader)) >= number

    await wait_until(shown, timeout=300, what=f"{number} layers are visible")


async def _container(stack: ComposeStack, service: str) -> str:
    (container,) = await stack.inspect(service)
    return str(container["Id"])


async def _is_back(stack: ComposeStack) -> bool:
    try:
        return (await stack.ready())[0] == 200
    except aiohttp.ClientError:
        return False


async def test_either_publisher_is_killed_in_the_middle_and_nothing_is_lost(
    stack: ComposeStack, layers: Sequence[LayerArchive]
) -> None:
    docker = stack.engine.docker
    first, second = await _container(stack, "publisher"), await _container(stack, "publisher-2")
    async with asyncio.TaskGroup() as group:
        group.create_task(_upload(stack, layers[:200]))
        await _shows(stack, 20)
        await docker("kill", "--signal", "KILL", first)
    await _shows(stack, 200)
    await docker("start", first)
    await wait_until(partial(_is_back, stack), timeout=300, what="the first publisher is ready again")
    async with asyncio.TaskGroup() as group:
        group.create_task(_upload(stack, layers[200:350]))
        await _shows(stack, 220)
        await docker("kill", "--signal", "KILL", second)
    await _upload(stack, layers[350:])
    await _shows(stack, _LAYERS)
    with stack.reader() as reader:
        revisions = await asyncio.to_thread(_history, reader)
    assert revisions[0] == {layer.digest for layer in layers}
    # What was visible has stayed so.
    assert all(older <= newer for newer, older in pairwise(revisions))
    # No layer was published twice, by whoever lived to say so.
    said = (await stack.compose("logs", "--no-color", "--no-log-prefix", "publisher", "publisher-2")).text.splitlines()
    events = [json.loads(line[line.index("{") :]) for line in said if "{" in line]
    published = Counter(digest for event in events if event["event"] == "published" for digest in event["layers"])
    assert [digest for digest, times in published.items() if times > 1] == []
    assert len(published) >= _LAYERS - 2 * _BATCH


async def test_the_journal_knows_every_layer_as_published(stack: ComposeStack) -> None:
    async def all_are() -> bool:
        async with PublisherApi(url=stack.publisher_url, token=None) as api:
            counts = (await api.status()).layers
        return {state: number for state, number in counts.items() if number} == {"published": _LAYERS}

    await wait_until(all_are, timeout=120, what="the journal says that all layers are published")


async def test_the_repository_is_whole(stack: ComposeStack) -> None:
    command = ("thin-repository", "check", stack.repository, "--quick", "--json")
    report = json.loads((await stack.compose("exec", "-T", "publisher", *command)).stdout)
    assert report["problems"] == []


async def test_clients_and_caches_are_told_what_they_are_of_a_directory(stack: ComposeStack) -> None:
    with stack.reader() as reader:
        catalog = reader.head().manifest.root.path(ObjectKind.CATALOG)
    kept = "public, max-age=259200, immutable"
    expected = {
        ".cvmfspublished": (200, "application/x-cvmfs", "public, max-age=61"),
        catalog: (200, "application/octet-stream", kept),
        f"data/00/{'0' * 38}": (404, "text/html", "no-store"),
        ".cvmfs_nothing": (404, "text/html", "no-store"),
        "data/": (404, "text/html", "no-store"),
    }
    async with aiohttp.ClientSession(f"{stack.repository_url}/") as session:
        for path, told in expected.items():
            async with session.get(path) as response:
                assert (response.status, response.content_type, response.headers["Cache-Control"]) == told, path
                assert response.headers.keys() & {"ETag", "Last-Modified", "Content-Encoding"} == set()
        async with session.get(catalog, headers={"Range": "bytes=2-5"}) as response:
            assert (response.status, len(await response.read())) == (206, 4)
        async with session.head(catalog) as response:
            assert (response.status, response.headers["Cache-Control"]) == (200, kept)
        async with session.put(catalog, data=b"") as response:
            assert response.status == 405
