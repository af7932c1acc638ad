"""Real daemons for the end-to-end tests, which share them as far as they do not damage them.

Everything runs in the event loop of the session, since a daemon belongs to the loop that started it: modules here say
`pytestmark = pytest.mark.asyncio(loop_scope="session")`.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from harness.engine import Engine
from harness.node import Node
from harness.stratum0 import Stratum0
from tests.support.compose import CHECKOUT, ComposeStack
from tests.support.documentation import commands_below
from tests.support.e2e import REPOSITORY, Images, Nodes


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stratum0(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stratum0]:
    """SeaweedFS, which announces uploads to a publisher, which writes a directory repository."""
    stratum0 = Stratum0(directory=tmp_path_factory.mktemp("stratum0"), repository=REPOSITORY)
    try:
        await stratum0.start()
        yield stratum0
    finally:
        await stratum0.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def images(stratum0: Stratum0, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The base image, regular and thin."""
    return await Images.make(stratum0, tmp_path_factory.mktemp("images"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def overlay2(images: Images, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """The same Docker with overlay2 and the regular base image, to compare with."""
    engine = Engine(name="overlay2", directory=tmp_path_factory.mktemp("overlay2"))
    try:
        await engine.start()
        await images.load(engine)
        yield engine
    finally:
        await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nodes(stratum0: Stratum0, images: Images, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """Starts further nodes, which end with the module."""
    async with Nodes(tmp_path_factory.mktemp("nodes"), stratum0, images) as nodes:
        yield nodes


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(nodes: Nodes) -> Node:
    """A node of the module's own, with the base image in both forms."""
    return await nodes.start()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def builder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """An engine with a network of its own, where images are built and services run."""
    engine = Engine(name="builder", directory=tmp_path_factory.mktemp("builder"), bridge="172.30.0.1/24")
    try:
        await engine.start()
        yield engine
    finally:
        await engine.kill()  # an orderly stop gives each container seconds to end, and nothing of them is of use
        await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def compose_stack(builder: Engine, tmp_path_factory: pytest.TempPathFactory) -> ComposeStack:
    """The stack of docker-compose.yml with SeaweedFS, up and healthy; who changes it brings it back."""
    stack = ComposeStack(engine=builder, directory=tmp_path_factory.mktemp("compose") / "clone")
    await stack.clone()
    # Word for word what the documentation says, so that it is true.
    await stack.shell(commands_below(CHECKOUT / "docs" / "stratum0.md", "## With docker compose"), timeout=900)
    return stack
