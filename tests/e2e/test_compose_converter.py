"""Profile `converter` of the compose stack: images of a wish list are published, and again when their tags move."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import run
from harness.engine import Engine
from harness.ports import free_ports
from harness.processes import wait_until
from harness.registry import Registry
from tests.support.compose import ComposeStack
from tests.support.forwarder import forwarded
from tests.support.oci import write_image
from tests.support.tars import archive, member

pytestmark = pytest.mark.asyncio(loop_scope="session")

_PATIENCE = 300


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(
    compose_stack: ComposeStack, builder: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """Address of a registry without TLS, of which the converter of the stack has a wish list."""
    registry = Registry(tmp_path_factory.mktemp("registry") / "registry")
    (port,) = free_ports(1)
    try:
        await registry.start()
        host, _, number = registry.address.rpartition(":")
        async with forwarded(builder.gateway, host, int(number)) as address:
            wishes = f"version: 2\ndefaults: {{repositories: {compose_stack.repository}, interval: 2s}}\nimages:\n"
            wishes += f'  - {{image: "{address}/physics/tool", tags: "v*"}}\n'
            (compose_stack.directory / "wish-lists" / "images.yaml").write_text(wishes)
            settings = f"export REGISTRY_PLAIN_HTTP={address} LISTEN_CONVERTER=127.0.0.1:{port}\n"
            try:
                await compose_stack.shell(f"{settings}docker compose --profile converter up --detach --wait")
                yield address
            finally:
                await compose_stack.compose("rm", "--stop", "--force", "converter")
                await compose_stack.up()
    finally:
        await registry.close()


async def _push(address: str, tag: str, content: str, directory: Path) -> bytes:
    """Push an image of one file; return its manifest."""
    write_image(directory, [archive(member(b"file", content.encode()))])
    name = f"docker://{address}/physics/tool:{tag}"
    await run(
        "skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", f"oci:{directory}:latest", name
    )
    return (await run("skopeo", "inspect", "--raw", "--tls-verify=false", name)).stdout


async def test_images_of_a_wish_list_are_published_and_kept_up_to_date(
    compose_stack: ComposeStack, registry: str, tmp_path: Path
) -> None:
    place = f"/.metadata/{registry}/physics/tool:v1/manifest.json".encode()
    for content in ("first", "second"):
        manifest = await _push(registry, "v1", content, tmp_path / content)

        async def is_served(manifest: bytes = manifest) -> bool:
            with compose_stack.reader() as reader:
                revision = reader.newest(reader.head())
                entry = revision.stat(place)
                return entry is not None and b"".join(revision.content(entry)) == manifest

        await wait_until(is_served, timeout=_PATIENCE, what=f"the {content} image is served")
    (container,) = await compose_stack.inspect("converter")
    assert (container["State"]["Health"]["Status"], container["Config"]["User"]) == ("healthy", "10001:10001")
