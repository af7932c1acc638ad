"""The variant whose publisher drives cvmfs_server: with the stand-in, packed as the real one is."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio

from harness.engine import Engine
from harness.processes import wait_until
from services.common.layout import sidecar_path
from services.common.repository_name import RepositoryName
from tests.support.compose import ComposeStack
from tests.support.cvmfs_package import build_packages
from tests.support.publisher import make_layer

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAME = RepositoryName("real.example.org")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that its base has
        """Say nothing."""


@contextmanager
def _served(directory: Path, address: str) -> Iterator[str]:
    """Serve a directory to containers."""
    with ThreadingHTTPServer((address, 0), partial(_Quiet, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{address}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(builder: Engine, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ComposeStack]:
    directory = tmp_path_factory.mktemp("cvmfs")
    packages = directory / "packages"
    packages.mkdir()
    with _served(packages, builder.gateway) as url:
        source = build_packages(packages, url)
        stack = ComposeStack(
            engine=builder,
            directory=directory / "clone",
            repository=NAME,
            variants=("seaweedfs", "cvmfs"),
            settings={
                "COMPOSE_PROJECT_NAME": "cvmfs-real",
                "IMAGE_TAG": "cvmfs",
                "CVMFS_SOURCE": f"{url}/{source}",
                "CVMFS_HOST_ROOT": str(directory / "host"),
            },
        )
        await stack.clone()
        await stack.shell("make secrets && cp .env.example .env && docker compose build", timeout=900)
    try:
        yield stack
    finally:
        await stack.compose("down", "--volumes", "--timeout", "5")


async def test_without_a_repository_it_says_how_one_is_made(stack: ComposeStack) -> None:
    ended = await stack.compose("run", "--rm", "--no-deps", "publisher", accept=(1,))
    assert f"docker compose run --rm publisher cvmfs_server mkfs -p -o root {NAME}" in ended.complaint


async def test_layers_are_published_and_the_state_is_on_the_host(stack: ComposeStack, tmp_path: Path) -> None:
    await stack.compose("run", "--rm", "--no-deps", "publisher", "cvmfs_server", "mkfs", "-p", "-o", "root", NAME)
    await stack.up("publisher")
    first, second = (make_layer(tmp_path, name) for name in ("first", "second"))
    await stack.upload(first)
    published = await stack.published(first.digest)
    assert published["revision"] == 2
    # As at a restart of the machine: what was mounted is gone, and is mounted again.
    await stack.down()
    await stack.up("publisher")
    await stack.upload(second)
    assert (await stack.published(second.digest))["revision"] == 3
    storage = stack.directory.parent / "host" / "srv" / "cvmfs" / NAME / "current"
    assert [(storage / sidecar_path(layer.digest)).exists() for layer in (first, second)] == [True, True]


async def test_nothing_is_left_of_processes_that_have_ended(stack: ComposeStack) -> None:
    # As a CVMFS client does: it goes on without a parent, and ends some time.
    await stack.compose("exec", "publisher", "sh", "-c", "(sleep 0.1 &)")
    (container,) = await stack.inspect("publisher")

    async def collected() -> bool:
        top = await stack.engine.docker("top", container["Id"], "-eo", "pid,stat,args")
        return "sleep" not in top.text

    await wait_until(collected, what="the process has been collected")


async def test_the_publisher_has_the_capabilities_that_are_named_and_no_other(stack: ComposeStack) -> None:
    (container,) = await stack.inspect("publisher")
    assert container["HostConfig"]["Privileged"] is False
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    effective = Path(f"/proc/{container['State']['Pid']}/status").read_text().split("CapEff:\t")[1].split()[0]
    assert int(effective, 16).bit_count() == len(container["HostConfig"]["CapAdd"])
    assert str(stack.directory.parent / "host") not in Path("/proc/self/mountinfo").read_text()
