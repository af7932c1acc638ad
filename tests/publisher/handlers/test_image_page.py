"""The pages of images in a browser: none and ten thousand, one with all that is known of it, and how they are left."""

import json
import re
import sqlite3
from collections.abc import AsyncIterator
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient

from harness.processes import wait_until
from services.publisher.settings import PublisherSettings
from tests.publisher.handlers.conftest import serving, settings_below
from tests.support.chromium import Chromium, Tab
from tests.support.page import HOSTILE, THEMES, WIDTHS, looks_right
from tests.support.publisher import REPOSITORY, TOKEN

Client = TestClient[Any, Any]

pytestmark = pytest.mark.asyncio(loop_scope="module")

_BEARER = {"Authorization": f"Bearer {TOKEN}"}
_NOW = 1_795_000_000.0
_LAYERS = [sha256(b"layer %d" % number).hexdigest() for number in range(3)]

_CONFIGS = {"linux/amd64": "a" * 64, "linux/arm64/v8": "b" * 64}


def _name(number: int) -> str:
    return f"quay.io/ns-{number % 10}/{'a-long-name-' * 8 if number == 7 else ''}tool-{number:04}:v1"


def _digest(number: int) -> str:
    return sha256(b"image %d" % number).hexdigest()


def _row(number: int) -> tuple[object, ...]:
    """Make a row of the journal: a few images are not published."""
    state, reason, again = "published", None, 0
    if number % 1000 == 3:
        state, reason = "failed", f"refused: {HOSTILE}"
    elif number % 1000 == 4:
        state, reason, again = "failed", "the registry is down: " + "x" * 3000, 1
    elif number < 3:
        state = ("asked", "resolving", "removing")[number]
    verified = json.dumps({"policy": HOSTILE, "key": "cosign.pub", "identity": None}) if number == 5 else None
    published = None if state in ("asked", "resolving", "failed") else _digest(number)
    times = (1.25, 61.5, 2.5) if published else (None, None, None)
    return (
        *(_name(number), "quay.io", _name(number), published, _digest(number), '["linux/amd64"]', 0, verified),
        *(state, reason, again, _NOW + 10**9, *times),
        *(_NOW - number, _NOW - number, _NOW - number if published else None, _NOW - number),
    )


def _fill(settings: PublisherSettings) -> None:
    """Let the journal know ten thousand images, and the layers and versions of one."""
    connection = sqlite3.connect(settings.state / "journal.sqlite")
    connection.executemany(
        """
        INSERT INTO images
            (name, registry, reference, published, digest, platforms, priority, verified, state, reason, retryable,
             due, resolving, fetching, publishing, asked_at, checked_at, published_at, updated_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        map(_row, range(10_000)),
    )
    name = _name(5)
    connection.executemany(
        """
        INSERT INTO image_versions (name, digest, reference, platforms, images, published_at, replaced_at)
        VALUES (?, ?, ?, '[]', '[]', ?, ?)
        """,
        [(name, _digest(5), name, _NOW - 5, None), (name, "f" * 64, name, _NOW - 9, _NOW - 5)],
    )
    connection.executemany(
        "INSERT INTO version_layers (name, digest, position, layer, diff_id, size) VALUES (?, ?, ?, ?, ?, ?)",
        [(name, _digest(5), place, digest, digest, 5 << 20) for place, digest in enumerate(_LAYERS)],
    )
    _give_outputs(connection, name)
    connection.commit()
    connection.close()


def _give_outputs(connection: sqlite3.Connection, name: str) -> None:
    """Let an image be shown in all ways, for two platforms."""
    outputs = json.dumps({"flat": {"others_read": False}, "podman": {"store": "atlas"}})
    images: list[tuple[str, str, str, list[object]]] = [
        (platform, config, config, []) for platform, config in _CONFIGS.items()
    ]
    report = json.dumps({"variant-link": {"count": 1021, "first": [f"'{HOSTILE}'", "'lib/" + "x" * 300 + "'"]}})
    connection.execute("UPDATE images SET outputs = ? WHERE name = ?", (outputs, name))
    connection.execute(
        "UPDATE image_versions SET outputs = ?, images = ? WHERE name = ? AND digest = ?",
        (outputs, json.dumps(images), name, _digest(5)),
    )
    for config in _CONFIGS.values():
        connection.execute("INSERT INTO flats (config, report) VALUES (?, ?)", (config, report))
        connection.execute("INSERT INTO version_flats VALUES (?, ?, ?)", (name, _digest(5), config))


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
    """A publisher that knows ten thousand images."""
    settings = settings_below(tmp_path_factory.mktemp("full"))
    async with serving(settings) as client:
        _fill(settings)
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def empty(tmp_path: Path) -> AsyncIterator[Client]:
    """A publisher that has not been asked for any image."""
    async with serving(settings_below(tmp_path)) as client:
        yield client


def _url(client: Client, path: str) -> str:
    return str(client.make_url(path))


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize(("width", "theme"), list(zip(WIDTHS, THEMES, strict=True)))
async def test_ten_thousand_images(
    full: Client, tab: Tab, tmp_path: Path, *, width: int, theme: str, scripts: bool
) -> None:
    await tab.show(width=width, theme=theme, scripts=scripts)
    await tab.open(_url(full, "/"))
    await looks_right(tab, tmp_path / "page.png", width=width, theme=theme)
    flow = _flat(await tab.text(".flow"))
    assert "asked 1 waiting fetching 1 being fetched ready 1 for the next transaction publishing 0" in flow
    assert "published 9 977 in the repository failed 20 10 refused, 10 retrying" in flow
    assert f"refused: {HOSTILE}" in await tab.text(".failures")
    assert await tab.value("document.querySelectorAll('.failures li').length") == 6
    assert await tab.value("document.querySelectorAll('tbody tr').length") == 25
    row = _flat(await tab.text("tbody tr:nth-child(2)"))
    assert row.startswith(_name(10))
    assert _digest(10)[:12] in row
    # How long the steps took is left out where there is no room for it.
    assert ("<1 s" in row, "1 min" in row) == ((False, False) if width == 390 else (False, True))
    assert await tab.text("nav.pages") == "Next"
    assert await tab.text("nav.views [aria-current=page]") == "Images"
    assert await tab.text("#freshness") == "Live" if scripts else "Reload" in await tab.text("#freshness")


async def test_no_images(empty: Client, tab: Tab, tmp_path: Path) -> None:
    await tab.show(width=390, theme="light", scripts=False)
    await tab.open(_url(empty, "/"))
    await looks_right(tab, tmp_path / "page.png", width=390, theme="light")
    text = await tab.text()
    assert "No image has been asked for yet" in text
    assert "Failures" not in text
    assert await tab.value("document.querySelector('#images a').getAttribute('href')") == "/layers"


@pytest.mark.parametrize(("width", "theme"), list(zip(WIDTHS, reversed(THEMES), strict=True)))
async def test_an_image_has_its_layers_and_versions(
    full: Client, tab: Tab, tmp_path: Path, *, width: int, theme: str
) -> None:
    await tab.show(width=width, theme=theme, scripts=False)
    await tab.open(_url(full, f"/image?name={_name(5)}"))
    await looks_right(tab, tmp_path / "page.png", width=width, theme=theme)
    text = _flat(await tab.text("#image"))
    for part in (
        _name(5),
        f"Digest sha256:{_digest(5)}",
        f"Verified: policy {HOSTILE}",
        "Verified: key cosign.pub",
        "Resolving took 1.25 s",
        "Fetching took 61.50 s",
        "Publishing took 2.50 s",
        "5.0 MiB",
        "f" * 12,
        f"flat /cvmfs/{REPOSITORY}/{_name(5)} /cvmfs/{REPOSITORY}/.flat/aa/{'a' * 64} /cvmfs/",
        f"podman /cvmfs/{REPOSITORY}/podmanStores/atlas /cvmfs/{REPOSITORY}/podmanStores-arm64-v8/atlas",
        f"variant-link: 1 021 '{HOSTILE}', 'lib/xxx",
    ):
        assert part in text
    assert "identity" not in text
    links = await tab.value("[...document.querySelectorAll('tbody th a')].map(link => link.getAttribute('href'))")
    assert links == [f"/layers?digest={digest}#layers" for digest in _LAYERS]


@pytest.mark.parametrize("width", WIDTHS)
async def test_an_image_of_a_long_name_and_a_long_reason_fits(
    full: Client, tab: Tab, tmp_path: Path, *, width: int
) -> None:
    await tab.show(width=width, theme="light", scripts=False)
    for number in (4, 7):
        await tab.open(_url(full, f"/image?name={_name(number)}"))
        await looks_right(tab, tmp_path / "page.png", width=width, theme="light")
    await tab.open(_url(full, "/?prefix=quay.io/ns-7/a-long"))
    await looks_right(tab, tmp_path / "page.png", width=width, theme="light")
    assert await tab.value("document.querySelectorAll('tbody tr').length") == 1


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("/?state=asked", "No image has been asked for yet", "quay.io/ns/live:v1"),
        ("/image?name=quay.io/ns/live:v1", "No image quay.io/ns/live:v1 has been asked for", "linux/amd64"),
    ],
)
async def test_the_pages_keep_themselves_up_to_date(
    empty: Client, tab: Tab, *, path: str, before: str, after: str
) -> None:
    await tab.show(width=1280, theme="light")
    await tab.open(_url(empty, path))
    assert before in await tab.text("main")
    await tab.value("window.loadedOnce = true")
    name = "quay.io/ns/live:v1"
    assert (await empty.post("/v1/images", json={"name": name}, headers=_BEARER)).status == 202

    async def shown() -> bool:
        return after in await tab.text("main")

    await wait_until(shown, what="the page shows the image")
    assert await tab.value("window.loadedOnce") is True


async def test_pages_show_every_image_once(full: Client) -> None:
    path, found = "/?prefix=quay.io/ns-1/tool-0&state=published", list[str]()
    while path:
        html = await (await full.get(path)).text()
        body = html[html.index("<tbody>") :]
        found += re.findall(r'<th scope="row">\s*<a [^>]*>([^<]+)</a>', body)
        after = re.search(r'href="([^"]+)" rel="next"', body)
        path = unescape(after[1]) if after else ""
        assert ('rel="prev"' in body) == (len(found) > 25)
    assert found == [_name(number) for number in range(11, 1000, 10)]


async def test_a_form_without_scripts_filters_images(full: Client, tab: Tab) -> None:
    await tab.show(width=1280, theme="light", scripts=False)
    await tab.open(_url(full, "/?state=failed&prefix=quay.io%2Fns-3%2F"))
    assert await tab.value("document.querySelector('select[name=state]').value") == "failed"
    assert await tab.value("document.querySelector('input[name=prefix]').value") == "quay.io/ns-3/"
    assert await tab.value("document.querySelectorAll('tbody tr').length") == 10
    assert await tab.text("nav.pages") == ""
    await tab.open(_url(full, "/?state=failed&prefix=quay.io/ns-4/"))
    assert "Tried again in " in await tab.text("tbody")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/?state=lost", 400, "state is one of asked"),
        (f"/?prefix={'x' * 513}", 400, "prefix and after have at most 512 characters"),
        ("/image", 404, "not the name of an image"),
        ("/image?name=quay.io/no/thing:v1", 404, "No image quay.io/no/thing:v1 has been asked for"),
        ("/image/live?name=quay.io/no/thing:v1", 404, "No image quay.io/no/thing:v1 has been asked for"),
    ],
)
async def test_what_cannot_be_shown_is_told(full: Client, path: str, status: int, text: str) -> None:
    response = await full.get(path)
    assert response.status == status
    assert text in await response.text()


async def test_what_is_shown_is_escaped(full: Client) -> None:
    hostile = quote(HOSTILE)
    paths = ("/", "/live", f"/?prefix={hostile}", f"/image?name={hostile}", f"/image?name={_name(3)}")
    for path in (*paths, f"/image/live?name={_name(5)}"):
        response = await full.get(path)
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        html = await response.text()
        assert "<script>" not in html
        assert "<img src=x" not in html
        assert html.count("&lt;script&gt;") > 0
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"", html)
