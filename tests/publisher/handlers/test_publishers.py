"""Of several publishers that share a journal, each answers for all: who leads, who works on what, who has gone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from tests.publisher.handlers.conftest import IMAGE, LAYER, serving_one_of_several
from tests.support.metrics import samples

Client = TestClient[Any, Any]


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Client]:
    """One of several publishers."""
    async with serving_one_of_several(tmp_path) as client:
        yield client


async def test_all_are_in_the_status_and_counted(several: Client) -> None:
    status = await (await several.get("/v1/status")).json()
    found = [(entry["name"], entry["standing"], entry["layers"], entry["images"]) for entry in status["publishers"]]
    assert found == [
        ("two", "leading", 1, 1),
        ("one", "following", 0, 0),
        ("three", "ended", 0, 0),
        ("four", "gone", 0, 0),
    ]
    two = status["publishers"][0]
    assert two["id"] == "22"
    assert two["started_at"] < two["seen_at"]
    # What "two" has to recover is no obstacle of the one that stands by.
    assert (status["leads"], status["waiting_for"]) == (False, None)
    values = samples(await (await several.get("/metrics")).text())
    for standing in ("leading", "following", "ended", "gone"):
        assert values[f'publisher_publishers{{standing="{standing}"}}'] == 1


async def test_layers_and_images_name_who_works_on_them(several: Client) -> None:
    layers = await (await several.get("/v1/layers")).json()
    images = await (await several.get("/v1/images")).json()
    assert [entry["publisher"] for entry in (*layers["layers"], *images["images"])] == ["two", "two"]
    for path in (f"/v1/layers/{LAYER}", f"/v1/images/{IMAGE}"):
        assert (await (await several.get(path)).json())["publisher"] == "two"


async def test_the_pages_name_who_works_on_what(several: Client) -> None:
    for path in ("/", "/layers"):
        page = await (await several.get(path)).text()
        assert "Another publisher has one open: 0 images, 1 layers." in page
        assert '<p class="muted">with two</p>' in page
    page = await (await several.get(f"/image?name={IMAGE}")).text()
    assert "<dt>Worked on by</dt><dd>two</dd>" in page
