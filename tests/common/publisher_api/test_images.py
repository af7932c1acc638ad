"""What is asked of a publisher about images is what its interface has, and what it answers is read."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr, ValidationError

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.publisher_api import (
    ImageRequest,
    ImagesNotOfferedError,
    NotKnownError,
    PublisherApi,
    PublisherRefusedError,
    PublisherTokenError,
)

_NAME = ImageName("quay.io/ns/tool:v1")
_DIGEST = Digest("a" * 64)
_TIME = "2026-01-02T03:04:05.678+00:00"
_DOCUMENT: dict[str, object] = {
    "name": _NAME,
    "reference": _NAME,
    "digest": _DIGEST.oci,
    "platforms": ["linux/amd64"],
    "state": "published",
    "published_digest": _DIGEST.oci,
    "layers": [{"digest": "b" * 64, "size": 5, "state": "published"}],
    "steps": {"resolving": 0.5, "fetching": None, "publishing": None},
    "asked_at": _TIME,
    "updated_at": _TIME,
    "what later publishers add": 1,
}


@asynccontextmanager
async def _answering(answer: Callable[[web.Request, object], web.Response]) -> AsyncIterator[PublisherApi]:
    async def handle(request: web.Request) -> web.Response:
        return answer(request, await request.json() if request.can_read_body else None)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(app) as server, PublisherApi(url=str(server.make_url("/")), token=SecretStr("secret")) as api:
        yield api


async def test_an_image_is_asked_for_with_what_was_set_and_nothing_else() -> None:
    asked: list[object] = []

    def answer(request: web.Request, body: object) -> web.Response:
        asked.append((request.method, request.path, request.headers["Authorization"], body))
        return web.json_response(_DOCUMENT, status=202)

    async with _answering(answer) as api:
        image = await api.images.ask(ImageRequest(name=_NAME, digest=_DIGEST.oci, platforms=("linux/amd64",)))
    body = {"name": _NAME, "digest": _DIGEST.oci, "platforms": ["linux/amd64"]}
    assert asked == [("POST", "/v1/images", "Bearer secret", body)]
    assert image.has(_DIGEST)
    assert image.layers[0].digest == "b" * 64
    assert image.steps.resolving == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "quay.io/../x:v1"},
        {"name": "x:v1"},
        {"digest": "a" * 64},
        {"digest": f"sha512:{'a' * 64}"},
        {"platforms": ["linux"]},
        {"platforms": ["linux/amd64"] * 33},
        {"keep_replaced_seconds": -1},
        {"keep_replaced_seconds": "NaN"},
        {"priority": 1001},
        {"token": "t"},
    ],
)
def test_a_request_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ImageRequest.model_validate_json(json.dumps({"name": _NAME, **wrong}))


async def test_thousands_that_are_as_they_were_are_told_a_thousand_at_once() -> None:
    names = [ImageName(f"quay.io/ns/tool:{number}") for number in range(2500)]
    sizes: list[int] = []

    def answer(_request: web.Request, body: object) -> web.Response:
        assert isinstance(body, dict)
        sizes.append(len(body["images"]))
        return web.json_response({"unknown": [body["images"][-1]["name"]]})

    async with _answering(answer) as api:
        unknown = await api.images.checked([(name, _DIGEST) for name in names])
    assert sizes == [1000, 1000, 500]
    assert unknown == (names[999], names[1999], names[2499])


async def test_pages_are_followed_to_their_end() -> None:
    def answer(request: web.Request, _body: object) -> web.Response:
        following = None if "after" in request.query else "/v1/images?state=published&after=x"
        return web.json_response({"images": [_DOCUMENT], "next": following})

    async with _answering(answer) as api:
        assert [image.name async for image in api.images.every([("state", "published")])] == [_NAME, _NAME]


async def test_an_image_is_named_in_a_path_as_it_is_written() -> None:
    name = ImageName(f"reg.example:5000/a/b@sha256:{_DIGEST}")
    paths: list[tuple[str, str, object]] = []

    def answer(request: web.Request, body: object) -> web.Response:
        paths.append((request.method, request.path_qs, body))
        versions = [{"digest": _DIGEST.oci, "published_at": _TIME}]
        return web.json_response({"versions": versions} if request.path.endswith("/versions") else _DOCUMENT)

    async with _answering(answer) as api:
        await api.images.image(name)
        await api.images.retry(name)
        await api.images.restore(name, _DIGEST)
        await api.images.remove(name, keep_seconds=60.0)
        (version,) = await api.images.versions(name)
    assert version.digest == _DIGEST
    assert paths == [
        ("GET", f"/v1/images/{name}", None),
        ("POST", f"/v1/images/{name}/retry", None),
        ("POST", f"/v1/images/{name}/restore", {"digest": _DIGEST.oci}),
        ("DELETE", f"/v1/images/{name}?keep_seconds=60", None),
        ("GET", f"/v1/images/{name}/versions", None),
    ]


async def test_refusals_are_told_apart() -> None:
    status = 404

    def answer(_request: web.Request, _body: object) -> web.Response:
        return web.json_response({"error": "the reason"}, status=status)

    request = ImageRequest(name=_NAME)
    async with _answering(answer) as api:
        assert await api.images.image(_NAME) is None
        with pytest.raises(NotKnownError, match="the reason"):
            await api.images.remove(_NAME)
        with pytest.raises(ImagesNotOfferedError, match="publishes layers only"):
            await api.images.ask(request)
        status = 401
        with pytest.raises(PublisherTokenError, match="the reason"):
            await api.images.ask(request)
        status = 403
        with pytest.raises(PublisherRefusedError, match="the reason"):
            await api.images.ask(request)
