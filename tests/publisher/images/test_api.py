"""The interface for images: who may do what, what is refused, and how lists go on."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.publisher_api import ImageRequest, PublisherRefusedError
from tests.support.image_site import ImagePublisher
from tests.support.publisher import TOKEN

pytestmark = pytest.mark.asyncio(loop_scope="session")

_PROJECT_TOKEN = "a-token-of-a-project"  # noqa: S105 - of a test
_NAME = "quay.io/ns/tool:v1"


async def _send(
    publisher: ImagePublisher, method: str, path: str, body: object = None, *, token: str = TOKEN
) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{publisher.url}{path}", data=data, headers=headers) as response,
    ):
        return response.status, await response.json()


async def _pause(publisher: ImagePublisher) -> None:
    """Keep everything where it is: nothing that is asked for is begun."""
    status, _ = await _send(publisher, "POST", "/v1/publishing/pause")
    assert status == 200


@pytest_asyncio.fixture(loop_scope="session")
async def paused(tmp_path: Path) -> AsyncIterator[ImagePublisher]:
    """A publisher of the test's own that begins nothing."""
    async with ImagePublisher.running(tmp_path / "publisher") as publisher:
        await _pause(publisher)
        yield publisher


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"no JSON", 400, "Invalid JSON"),
        ({}, 400, "name: Field required"),
        ({"name": "tool:v1"}, 400, "not the name of an image"),
        ({"name": "quay.io/../../etc:v1"}, 400, "not the name of an image"),
        ({"name": f"quay.io/{'a' * 240}:{'b' * 100}"}, 400, "too long"),
        ({"name": _NAME, "reference": "quay.io/NS/tool:v1"}, 400, "lower case"),
        ({"name": _NAME, "reference": "https://quay.io/ns/tool:v1"}, 400, "no scheme"),
        ({"name": _NAME, "digest": "sha512:0"}, 400, "only sha256"),
        ({"name": f"quay.io/ns/tool@sha256:{'a' * 64}", "digest": f"sha256:{'b' * 64}"}, 400, "another digest"),
        ({"name": _NAME, "platforms": ["linux"]}, 400, "platforms.0"),
        ({"name": _NAME, "platforms": ["linux/arm64", "linux/amd64", "windows/amd64"]}, 400, "same processor"),
        ({"name": _NAME, "mirror": "x"}, 400, "mirror: Extra inputs"),
        (b"[" * 100_000, 400, "JSON"),
        (b" " * (129 << 10), 413, "at most"),
    ],
)
async def test_a_bad_ask_is_refused_with_what_is_wrong(
    publisher: ImagePublisher, body: object, status: int, said: str
) -> None:
    answered, document = await _send(publisher, "POST", "/v1/images", body)
    assert answered == status
    assert said in document["error"]
    assert (await publisher.api.page()).images == ()


async def test_changes_need_a_token(publisher: ImagePublisher) -> None:
    for method, path in (
        ("POST", "/v1/images"),
        ("POST", "/v1/images/checked"),
        ("POST", f"/v1/images/{_NAME}/retry"),
        ("POST", f"/v1/images/{_NAME}/restore"),
        ("DELETE", f"/v1/images/{_NAME}"),
    ):
        for token in ("", "a-token-of-nobody"):
            assert (await _send(publisher, method, path, {"name": _NAME}, token=token))[0] == 401, (method, path)
    assert (await _send(publisher, "GET", f"/v1/images/{_NAME}", token=""))[0] == 404
    assert (await _send(publisher, "GET", f"/v1/images/{_NAME}/versions", token=""))[0] == 404
    assert (await _send(publisher, "DELETE", f"/v1/images/{_NAME}"))[0] == 404
    assert (await _send(publisher, "DELETE", f"/v1/images/{_NAME}?keep_seconds=-1"))[0] == 400
    assert (await _send(publisher, "GET", "/v1/images/no-name"))[0] == 400


async def test_a_project_changes_its_own_images_only(tmp_path: Path) -> None:
    projects = tmp_path / "projects.yaml"

    def write(glob: str) -> None:
        entry = [{"project": "ours", "token": _PROJECT_TOKEN, "names": [glob]}]
        projects.write_text(json.dumps(entry))

    await asyncio.to_thread(write, "quay.io/ours/*")
    async with ImagePublisher.running(tmp_path / "publisher", projects=projects) as publisher:
        await _pause(publisher)

        async def ask(**body: object) -> int:
            return (await _send(publisher, "POST", "/v1/images", body, token=_PROJECT_TOKEN))[0]

        assert await ask(name="quay.io/ours/tool:v1") == 202
        image = await publisher.api.image(ImageName("quay.io/ours/tool:v1"))
        assert image is not None
        assert image.project == "ours"
        assert await ask(name="quay.io/theirs/tool:v1") == 403
        # Nor what only the publisher's credentials can read.
        assert await ask(name="quay.io/ours/tool:v2", reference="quay.io/theirs/secret:v1") == 403
        assert await ask(name="quay.io/ours/tool:v2", reference="quay.io/ours/tool:v1") == 202
        checked = {"images": [{"name": "quay.io/theirs/tool:v1", "digest": f"sha256:{'a' * 64}"}]}
        assert (await _send(publisher, "POST", "/v1/images/checked", checked, token=_PROJECT_TOKEN))[0] == 403
        path = "/v1/images/quay.io/theirs/tool:v1"
        assert (await _send(publisher, "DELETE", path, token=_PROJECT_TOKEN))[0] == 403
        await asyncio.to_thread(write, "quay.io/theirs/*")
        assert await ask(name="quay.io/theirs/tool:v1") == 202
        assert await ask(name="quay.io/ours/tool:v3") == 403
        await asyncio.to_thread(projects.write_text, "- project: [")
        assert await ask(name="quay.io/theirs/tool:v1") == 202  # what was there before counts
        _, ready = await _send(publisher, "GET", "/readyz")
        assert "no YAML" in ready["warnings"]["projects"]


async def test_images_are_listed_page_by_page(paused: ImagePublisher) -> None:
    names = [ImageName(f"quay.io/ns/tool-{letter}:v1") for letter in "cab"]
    for name in names:
        await paused.ask(name)
    found = [image.name async for image in paused.api.every([("limit", "1")])]
    assert found == sorted(names)
    for query, expected in (
        ("state=asked", 3),
        ("state=published", 0),
        ("prefix=quay.io/ns/tool-a", 1),
        ("prefix=quay.io/ns/tool-", 3),
        ("prefix=docker", 0),
    ):
        _, document = await _send(paused, "GET", f"/v1/images?{query}")
        assert len(document["images"]) == expected, query
    for query in ("state=lost", "limit=0", "limit=x", "limit=1001", f"prefix={'a' * 600}"):
        assert (await _send(paused, "GET", f"/v1/images?{query}"))[0] == 400, query


async def test_the_later_of_two_asks_counts_and_a_repeated_one_changes_nothing(paused: ImagePublisher) -> None:
    name = ImageName(_NAME)
    one, two = Digest("1" * 64), Digest("2" * 64)
    asked = await paused.api.ask(ImageRequest(name=name, digest=one.oci, priority=1))
    assert (asked.digest, asked.priority) == (one, 1)
    again = await paused.api.ask(ImageRequest(name=name, digest=one.oci, priority=7))
    assert (again.asked_at, again.priority) == (asked.asked_at, 7)
    later = await paused.api.ask(ImageRequest(name=name, digest=two.oci))
    assert later.digest == two
    assert later.asked_at > asked.asked_at
    assert await paused.api.checked([(name, two)]) == (name,)
    with pytest.raises(PublisherRefusedError, match="no such version"):
        await paused.api.restore(name)
