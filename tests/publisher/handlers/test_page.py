"""The page of layers in a browser: both widths, both themes, none and ten thousand, with scripts and without."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient

from harness.processes import wait_until
from services.publisher.settings import PublisherSettings
from tests.publisher.handlers.conftest import serving, serving_one_of_several, settings_below
from tests.support.chromium import Chromium, Tab
from tests.support.notifications import ceph_event
from tests.support.page import HOSTILE, THEMES, WIDTHS, looks_right
from tests.support.publisher import TOKEN

Client = TestClient[Any, Any]

pytestmark = pytest.mark.asyncio(loop_scope="module")

_BEARER = {"Authorization": f"Bearer {TOKEN}"}
_NOW = 1_795_000_000.0


def _fill(settings: PublisherSettings) -> None:
    """Let the journal know ten thousand layers, some of which have failed."""
    rows = []
    for number in range(10_000):
        state, reason, again = "published", None, 0
        if number % 1000 == 3:
            state, reason = "failed", f"refused: {HOSTILE}"
        elif number % 1000 == 4:
            state, reason, again = "failed", "the store is down: " + "x" * 3000, 1
        elif number in (0, 1, 2):
            state = ("announced", "fetching", "publishing")[number]
        digest, time = sha256(b"%d" % number).hexdigest(), _NOW - number
        rows.append((digest, state, reason, again, 7, 5 << 20, 12 << 20, time, time))
    connection = sqlite3.connect(settings.state / "journal.sqlite")
    connection.executemany(
        """
        INSERT INTO layers
            (digest, state, reason, retryable, revision, archive_size, tree_size, announced_at, updated_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        rows,
    )
    connection.commit()
    connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    """One browser for all tests here."""
    async with Chromium(tmp_path_factory.mktemp("browser")).running() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Chromium) -> AsyncIterator[Tab]:
    async with browser.tab() as tab:
        yield tab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A publisher that knows ten thousand layers."""
    settings = settings_below(tmp_path_factory.mktemp("full"))
    async with serving(settings) as client:
        _fill(settings)
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def empty(tmp_path: Path) -> AsyncIterator[Client]:
    """A publisher that has not heard of any layer."""
    async with serving(settings_below(tmp_path)) as client:
        yield client


def _url(client: Client, path: str = "/layers") -> str:
    return str(client.make_url(path))


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
async def test_ten_thousand_layers(
    full: Client, tab: Tab, tmp_path: Path, *, width: int, theme: str, scripts: bool
) -> None:
    await tab.show(width=width, theme=theme, scripts=scripts)
    await tab.open(_url(full))
    await looks_right(tab, tmp_path / "page.png", width=width, theme=theme)
    flow = re.sub(r"\s+", " ", await tab.text(".flow"))
    assert "announced 1 waiting" in flow
    assert "published 9 977 in the repository" in flow
    assert "failed 20 10 refused, 10 retrying" in flow
    failures = await tab.text(".failures")
    assert f"refused: {HOSTILE}" in failures
    assert await tab.value("document.querySelectorAll('.failures li').length") == 6
    assert await tab.value("document.querySelectorAll('tbody tr').length") == 25
    row = re.sub(r"\s+", " ", await tab.text("tbody tr:nth-child(6)"))
    assert row.startswith(sha256(b"5").hexdigest()[:12])
    assert "5.0 MiB" in row
    assert "12.0 MiB" in row
    assert await tab.text("nav.pages") == "Older"
    assert await tab.text("#freshness") == "Live" if scripts else "Reload" in await tab.text("#freshness")


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
async def test_no_layers(empty: Client, tab: Tab, tmp_path: Path, *, width: int, theme: str, scripts: bool) -> None:
    await tab.show(width=width, theme=theme, scripts=scripts)
    await tab.open(_url(empty))
    await looks_right(tab, tmp_path / "page.png", width=width, theme=theme)
    text = await tab.text()
    assert "No layer has been announced yet" in text
    assert "None is open." in text
    assert "Publishing waits: the repository has not been recovered yet" in text
    assert "Failures" not in text


@pytest.mark.parametrize(("width", "theme", "scripts"), [(WIDTHS[0], THEMES[0], False), (WIDTHS[1], THEMES[1], True)])
async def test_several_publishers(tab: Tab, tmp_path: Path, *, width: int, theme: str, scripts: bool) -> None:
    await tab.show(width=width, theme=theme, scripts=scripts)
    async with serving_one_of_several(tmp_path) as client:
        await tab.open(_url(client))
        await looks_right(tab, tmp_path / "page.png", width=width, theme=theme)
        table = "section[aria-labelledby=publishers-heading]"
        assert await tab.value(f"document.querySelectorAll('{table} tbody tr').length") == 4
        rows = [re.sub(r"\s+", " ", await tab.text(f"{table} tbody tr:nth-child({number})")) for number in range(1, 5)]
        for row, name, standing in zip(
            rows, ("two", "one", "three", "four"), ("leading", "following", "ended", "gone"), strict=True
        ):
            assert row.startswith(name)
            assert standing in row
        assert await tab.value(f"document.querySelectorAll('{table} tr.gone').length") == 2


async def test_the_page_keeps_itself_up_to_date_and_says_when_it_cannot(tmp_path: Path, tab: Tab) -> None:
    await tab.show(width=1280, theme="light")
    async with serving(settings_below(tmp_path)) as client:
        await tab.open(_url(client))
        await tab.value("window.loadedOnce = true")
        body = ceph_event("layers", f"sha256/{'a' * 64}")
        assert (await client.post("/v1/events", data=body, headers=_BEARER)).status == 204
        await client.post("/v1/publishing/pause", data=b'{"reason": "a new disk"}', headers=_BEARER)

        async def shown() -> bool:
            text = await tab.text()
            return "Publishing has been paused" in text and "a new disk" in text and "aaaaaaaaaaaa" in text

        await wait_until(shown, what="the page shows what is new")
        assert await tab.value("document.querySelector('.flow .announced b').innerText") == "1"
        assert await tab.text("#freshness") == "Live"

    async def stale() -> bool:
        return (await tab.text("#freshness")).startswith("No answer from the publisher for ")

    await wait_until(stale, what="the page says that it is stale")
    assert "a new disk" in await tab.text()
    assert await tab.value("window.loadedOnce") is True


async def test_what_is_being_selected_stays(empty: Client, tab: Tab) -> None:
    await tab.show(width=1280, theme="light")
    await tab.open(_url(empty))
    await tab.value("window.before = document.getElementById('overview')")
    await tab.value("document.getSelection().selectAllChildren(window.before)")
    await tab.value(
        "window.answers = 0; new PerformanceObserver(l => window.answers += l.getEntries().length)"
        ".observe({type: 'resource'})"
    )

    async def asked() -> bool:
        return bool(await tab.value("window.answers") >= 2)

    await wait_until(asked, what="the page has asked twice")
    assert await tab.value("window.before === document.getElementById('overview')") is True
    await tab.value("document.getSelection().removeAllRanges()")

    async def replaced() -> bool:
        return bool(await tab.value("window.before !== document.getElementById('overview')"))

    await wait_until(replaced, what="the page goes on")


async def test_layers_are_filtered_by_a_form_without_scripts(full: Client, tab: Tab) -> None:
    await tab.show(width=1280, theme="light", scripts=False)
    await tab.open(_url(full, "/layers?state=failed&reason=STORE+is+down"))
    assert await tab.value("document.querySelector('select[name=state]').value") == "failed"
    assert await tab.value("document.querySelector('input[name=reason]').value") == "STORE is down"
    assert await tab.value("document.querySelectorAll('tbody tr').length") == 10
    assert await tab.text("nav.pages") == ""
    digest = sha256(b"3").hexdigest()
    await tab.open(_url(full, f"/layers?digest={digest}"))
    assert await tab.text("tbody code") == digest
    assert HOSTILE in await tab.text("tbody .reason")


async def test_pages_show_every_layer_once(full: Client) -> None:
    path, found = "/layers?digest=0", list[str]()
    while path:
        html = await (await full.get(path)).text()
        body = html[html.index("<tbody>") :]
        found += re.findall(r'title="([0-9a-f]{64})"', body)
        after = re.search(r'href="([^"]+)" rel="next"', body)
        path = unescape(after[1]) if after else ""
        assert ('rel="prev"' in body) == (len(found) > 25)
    expected = [sha256(b"%d" % number).hexdigest() for number in range(10_000)]
    assert found == [digest for digest in expected if digest.startswith("0")]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("state=lost", "state is one of announced"),
        ("digest=XYZ", "digest is the start of a digest"),
        ("after=%3Cscript%3E", "after is what the page before names"),
    ],
)
async def test_a_bad_query_is_told(full: Client, query: str, text: str) -> None:
    response = await full.get(f"/layers?{query}")
    assert response.status == 400
    assert text in await response.text()


async def test_what_is_shown_is_escaped(full: Client) -> None:
    await full.post("/v1/publishing/pause", json={"reason": HOSTILE}, headers=_BEARER)
    try:
        for path in (
            "/layers",
            "/layers/live",
            "/layers?state=failed",
            "/layers?reason=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        ):
            html = await (await full.get(path)).text()
            assert "<script>" not in html
            assert "<img src=x" not in html
            assert html.count("&lt;script&gt;") > 0
    finally:
        await full.post("/v1/publishing/resume", headers=_BEARER)


async def test_nothing_but_the_pages_own_files_is_loaded(full: Client) -> None:
    for path in ("/layers", "/layers/live", "/static/page.css", "/static/page.js", "/static/icon.svg"):
        response = await full.get(path)
        assert response.status == 200
        assert response.headers["Content-Security-Policy"] == (
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    html = await (await full.get("/layers")).text()
    assert not re.search(r"<style|<script>|\sstyle=|\son[a-z]+=\"|https?://(?!127)", html.replace(HOSTILE, ""))


@pytest.mark.parametrize(
    "path", ["/static/", "/static/renderer.py", "/static/../renderer.py", "/static/%2e%2e/renderer.py"]
)
async def test_no_other_file_is_given(full: Client, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", full.port)
    # As it is: a client would make the path a canonical one.
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")
