"""From a worker node through the compose stack to another one: a thin image runs, is committed, and runs elsewhere."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import run
from harness.containers import run_container
from harness.engine import Engine
from harness.node import Node
from harness.registry import Registry
from harness.thin_images import read_descriptor
from harness.trees import CONTAINER_EXCLUSIONS, differences, read_directory
from tests.support.compose import ComposeStack
from tests.support.cvmfs_client import follow
from tests.support.e2e import THIN, Images
from tests.support.fault_proxy import Link

pytestmark = pytest.mark.asyncio(loop_scope="session")


_CHANGES = """
    echo changed >/etc/motd && rm -r /etc/pam.d /etc/issue && mkdir -m 2770 /made && chown 7:8 /made &&
    ln -s ../etc/motd /made/link && mkfifo /made/pipe && cp -p /bin/su /made/su && chmod 4755 /made/su
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cvmfs_root(compose_stack: ComposeStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """What nodes have as `/cvmfs`: the repository as the compose stack serves it."""
    root = tmp_path_factory.mktemp("cvmfs-root")
    async with follow(compose_stack.reader(), root / compose_stack.repository):
        yield root


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(builder: Engine, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Address of a registry that the stack's containers reach, as a site's is."""
    registry = Registry(tmp_path_factory.mktemp("registry") / "registry")
    try:
        await registry.start()
        host, _, port = registry.address.rpartition(":")
        link = Link(int(port), host=host)
        async with link.up(builder.gateway):
            yield f"{builder.gateway}:{link.port}"
    finally:
        await registry.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def thin_image(
    compose_stack: ComposeStack, images: Images, registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The base image, made thin by docker2cvmfs of the compose stack; a docker archive."""
    directory = tmp_path_factory.mktemp("thin")
    regular, thin = f"{registry}/debian:trixie", f"{registry}/debian:thin"
    base = f"docker-archive:{images.directory / 'base.tar'}"
    await run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", base, f"docker://{regular}")
    names = (regular, compose_stack.repository, "--insecure", "--push", "--tag", thin)
    await compose_stack.compose("run", "--rm", "docker2cvmfs", "make-thin", *names)
    archive = directory / "thin.tar"
    await run(
        "skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{thin}", f"docker-archive:{archive}:{THIN}"
    )
    return archive


async def test_what_is_committed_on_one_node_runs_on_another(
    compose_stack: ComposeStack, cvmfs_root: Path, thin_image: Path, tmp_path: Path
) -> None:
    settings = {
        **compose_stack.access("uploader").environment,
        "GRAPHDRIVER_REPOSITORIES": compose_stack.repository,
        "GRAPHDRIVER_UPLOAD_REPOSITORY": compose_stack.repository,
    }
    async with AsyncExitStack() as stack:
        here, elsewhere = (
            Node(name=name, directory=tmp_path / name, cvmfs_root=cvmfs_root, driver_env=settings)
            for name in ("here", "elsewhere")
        )
        for node in (here, elsewhere):
            stack.push_async_callback(node.close)
            await node.start()
        await here.engine.docker("load", input=thin_image)
        container = await run_container(here.engine, THIN)
        await here.engine.docker("exec", container.id, "sh", "-c", _CHANGES)
        before = read_directory(container.root, exclusions=CONTAINER_EXCLUSIONS)
        await here.engine.docker("commit", container.id, "test:committed")
        await here.engine.docker("save", "test:committed", output=tmp_path / "committed.tar")
        *_, committed = (await read_descriptor(here.engine, "test:committed", tmp_path)).layers
        await compose_stack.published(committed.id)
        await elsewhere.engine.docker("load", input=tmp_path / "committed.tar")
        again = await run_container(elsewhere.engine, "test:committed")
        after = read_directory(again.root, exclusions=CONTAINER_EXCLUSIONS)
        assert differences(before, after, names=("committed", "elsewhere")) == []
