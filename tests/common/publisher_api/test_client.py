"""Whatever a server answers, a client of the publisher says what that means."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from services.common.digest import Digest
from services.common.publisher_api import (
    CheckSummary,
    PublisherApi,
    PublisherRefusedError,
    PublisherTokenError,
    PublisherUnreachableError,
)

_DIGEST = Digest("a" * 64)
Answer = Callable[[web.Request], web.Response]


@asynccontextmanager
async def _answering(answer: Answer, token: str | None = None) -> AsyncIterator[PublisherApi]:
    async def handle(request: web.Request) -> web.Response:
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with (
        TestServer(app) as server,
        PublisherApi(url=str(server.make_url("/")), token=SecretStr(token) if token else None) as api,
    ):
        yield api


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda _: web.Response(text="<html>"), "the answer is not a publisher's"),
        (lambda _: web.Response(text="[" * 100_000), "the answer is not a publisher's"),
        (lambda _: web.Response(status=404, text="[" * 100_000), "it answers with HTTP 404: is --publisher"),
        (lambda _: web.Response(text="{}"), "the answer is not a publisher's"),
        (lambda _: web.Response(status=404, text="<html>"), "it answers with HTTP 404: is --publisher"),
        (lambda _: web.Response(status=500, text='{"message": ""}'), "it answers with HTTP 500: is --publisher"),
        (lambda _: web.Response(status=302, headers={"Location": "/"}), "the answer is not a publisher's"),
        (lambda _: web.Response(body=b" " * (5 << 20)), "more than 4194304 bytes"),
    ],
)
async def test_what_is_no_publisher_is_told(answer: Answer, text: str) -> None:
    async with _answering(answer) as api:
        with pytest.raises(PublisherUnreachableError, match=text):
            await api.layer(_DIGEST)


async def test_a_layer_that_is_not_known_is_none() -> None:
    async with _answering(lambda _: web.Response(status=404, text='{"error": "no layer"}')) as api:
        assert await api.layer(_DIGEST) is None


async def test_a_refusal_is_told_in_the_publishers_words() -> None:
    async with _answering(lambda _: web.Response(status=503, text='{"error": "the disk is full"}')) as api:
        with pytest.raises(PublisherRefusedError, match="the disk is full"):
            await api.layer(_DIGEST)


async def test_passwords_of_other_programs_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp takes them from ~/.netrc, even in place of the token."""
    (tmp_path / "netrc").write_text("default login somebody password sesame\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    shown = []

    def answer(request: web.Request) -> web.Response:
        shown.append(request.headers.get("Authorization"))
        return web.Response(status=401, text='{"error": "the token is missing or wrong"}')

    async with _answering(answer, "secret") as api:
        for ask in (api.retry(_DIGEST), api.layer(_DIGEST)):
            with pytest.raises(PublisherTokenError):
                await ask
    assert shown == ["Bearer secret", None]


async def test_a_proxy_that_the_environment_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with PublisherApi(url="http://publisher.example:8480") as api:
        with pytest.raises(
            PublisherUnreachableError, match=r"GET http://publisher.example:8480/v1/status: .*127.0.0.1"
        ):
            await api.status()


async def test_the_token_goes_with_changes_only() -> None:
    shown = []

    def answer(request: web.Request) -> web.Response:
        shown.append((request.method, request.headers.get("Authorization")))
        return web.Response(status=401, text='{"error": "the token is missing or wrong"}')

    for token, header in (("secret", "Bearer secret"), ("Digest secret", "Digest secret"), (None, None)):
        async with _answering(answer, token) as api:
            for ask in (api.retry(_DIGEST), api.layer(_DIGEST)):
                with pytest.raises(PublisherTokenError, match="--token-file"):
                    await ask
        assert shown[-2:] == [("POST", header), ("GET", None)]


_FINDING = b'{"digest": "%s", "kind": "lost", "meaning": "m", "remedy": "r", "harmless": false}\n' % _DIGEST.encode()


async def _checked(body: bytes, status: int = 200) -> tuple[list[str], list[int]]:
    progress = list[int]()
    async with _answering(lambda _: web.Response(body=body, status=status)) as api:
        items = [item async for item in api.check(progress=progress.append)]
    return ["summary" if isinstance(item, CheckSummary) else item.kind for item in items], progress


async def test_a_check_is_read_to_its_summary() -> None:
    body = b'{"progress": {"layers": 7}}\n' + _FINDING + b'{"summary": {"layers": 9, "found": {"lost": 1}}}\n'
    assert await _checked(body) == (["lost", "summary"], [7])


@pytest.mark.parametrize(
    ("body", "status", "error", "text"),
    [
        (_FINDING, 200, PublisherUnreachableError, "the answer has no end"),
        (b"", 200, PublisherUnreachableError, "the answer has no end"),
        (_FINDING[:50], 200, PublisherUnreachableError, "not a publisher's"),
        (b'{"progress": 7}\n', 200, PublisherUnreachableError, "not a publisher's"),
        (b'{"error": "the store is down"}\n', 200, PublisherRefusedError, "not be finished: the store is down"),
        (b'{"error": "a check is running already"}', 409, PublisherRefusedError, "running already"),
    ],
)
async def test_a_check_that_does_not_end_well_is_an_error(
    body: bytes, status: int, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await _checked(body, status)
