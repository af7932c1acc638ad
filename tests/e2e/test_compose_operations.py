"""What operators do to the stack of docker-compose.yml, besides what `test_compose.py` does to it."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from services.common.archive.model import LayerArchive
from tests.support.compose import CHECKOUT, ComposeStack
from tests.support.documentation import commands_below
from tests.support.publisher import make_layer

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _thinctl(stack: ComposeStack, arguments: str) -> Any:  # noqa: ANN401 - a JSON document
    return json.loads((await stack.shell(f"docker compose exec -T publisher thinctl {arguments} --json")).stdout)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def layer(compose_stack: ComposeStack, tmp_path_factory: pytest.TempPathFactory) -> LayerArchive:
    """A published layer."""
    archive = make_layer(tmp_path_factory.mktemp("layer"), "operated")
    await compose_stack.upload(archive)
    await compose_stack.published(archive.digest)
    return archive


async def test_thinctl_needs_no_settings_in_the_publishers_container(
    compose_stack: ComposeStack, layer: LayerArchive
) -> None:
    assert (await _thinctl(compose_stack, f"show {layer.digest[:12]}"))["state"] == "published"
    assert (await _thinctl(compose_stack, "pause --reason test"))["paused"]["reason"] == "test"
    assert (await _thinctl(compose_stack, "resume"))["paused"] is None
    # Archives of earlier layers are gone where the stack has been restored from a back-up, as the documentation says.
    found = (await _thinctl(compose_stack, "check"))["disagreements"]
    assert {item["kind"] for item in found if item["digest"] != layer.digest} <= {"archive_gone"}
    assert layer.digest not in {item["digest"] for item in found}


async def test_the_page_and_what_it_loads_are_in_the_image(compose_stack: ComposeStack, layer: LayerArchive) -> None:
    async with aiohttp.ClientSession(compose_stack.publisher_url) as session:
        async with session.get("/") as response:
            assert response.status == 200
            assert layer.digest[:12] in await response.text()
        for name in ("page.css", "page.js", "icon.svg"):
            async with session.get(f"/static/{name}") as response:
                assert response.status == 200


async def test_a_secret_is_replaced_as_documented(compose_stack: ComposeStack, tmp_path: Path) -> None:
    await compose_stack.have_secrets_in_files()
    before = compose_stack.secret("event_token")
    script = commands_below(CHECKOUT / "docs" / "operations.md", "A secret in a file is replaced by")
    assert "/somewhere/safe/" in script
    await compose_stack.shell(script.replace("/somewhere/safe/", str(tmp_path)))
    assert compose_stack.secret("event_token") != before
    assert (await _thinctl(compose_stack, "resume"))["paused"] is None
    archive = make_layer(tmp_path, "announced")
    await compose_stack.upload(archive)
    # The store has the new token as well.
    await compose_stack.published(archive.digest)
