"""Diffs on the wire: small ones whole, large ones by the thread that packs them, and what becomes of broken ones."""

import asyncio
import contextlib
import io
import json
import os
import tarfile
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.graphdriver.plugin.conftest import Plugin, Plugins
from tests.support.engine_client import EngineClient
from tests.support.tars import END

LARGE = os.urandom(1 << 20) * 20


@pytest.fixture
async def layer(plugin: Plugin, home: Path) -> Path:
    """The directory of a layer that has a large file."""
    await plugin.call("Create", ID="large", Parent="")
    directory = home / "layers/large/diff"
    (directory / "large").write_bytes(LARGE)
    return directory


def _check(body: bytes, content: bytes) -> None:
    """See that a body is the tar of the layer, its end included."""
    assert body.endswith(END)
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        file = tar.extractfile("large")
        assert file is not None
        assert file.read() == content
        assert tar.getnames() == ["large"]


async def _ask(client: EngineClient, version: str = "1.1") -> None:
    body = json.dumps({"ID": "large", "Parent": ""}).encode()
    await client.send(
        b"POST /GraphDriver.Diff HTTP/%s\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s"
        % (version.encode(), len(body), body)
    )


@pytest.mark.parametrize(("size", "whole"), [(0, True), (100_000, True), (255_000, True), (270_000, False)])
async def test_what_is_small_is_answered_by_its_length(plugin: Plugin, layer: Path, size: int, *, whole: bool) -> None:
    (layer / "large").write_bytes(LARGE[:size])
    async with plugin.client() as client:
        answer = await client.call("/GraphDriver.Diff", {"ID": "large", "Parent": ""})
    assert (answer.status, answer.whole) == (200, True)
    assert answer.headers["content-type"] == "application/x-tar"
    assert ("content-length" in answer.headers, "transfer-encoding" in answer.headers) == (whole, not whole)
    _check(answer.body, LARGE[:size])


async def test_a_connection_goes_on_after_a_large_one(plugin: Plugin, layer: Path) -> None:
    (layer / "small").write_bytes(b"small")
    async with plugin.client() as client:
        for _ in range(3):
            answer = await client.call("/GraphDriver.Diff", {"ID": "large", "Parent": ""})
            assert answer.whole
            with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
                assert tar.getnames() == ["large", "small"]
            assert (await client.call("/GraphDriver.Exists", {"ID": "large"})).document == {"Exists": True}


@pytest.mark.usefixtures("layer")
async def test_who_reads_slowly_gets_all_of_it(plugin: Plugin) -> None:
    async with plugin.client() as client:
        await _ask(client)
        await client.head()
        received = bytearray()
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += await client.reader.readexactly(1)
            received += await client.reader.read(50_000)
            await asyncio.sleep(0)
    assert len(LARGE) < len(received) < len(LARGE) + 10_000


@pytest.mark.usefixtures("layer")
async def test_a_client_of_http_1_0_gets_no_chunks(plugin: Plugin) -> None:
    async with plugin.client() as client:
        await _ask(client, "1.0")
        status, headers = await client.head()
        assert (status, "transfer-encoding" in headers) == (200, False)
        body = await client.reader.read(-1)
    _check(body, LARGE)


@pytest.mark.usefixtures("layer")
async def test_others_are_served_while_nobody_reads(plugin: Plugin) -> None:
    async with plugin.client() as stalled:
        await _ask(stalled)
        await stalled.head()
        for _ in range(10):
            assert await plugin.call("Exists", ID="large") == {"Exists": True}


async def test_the_program_ends_while_nobody_reads(plugins: Plugins, home: Path) -> None:
    with capture_logs() as logs:
        async with contextlib.AsyncExitStack() as stack:
            async with plugins.running() as plugin:
                await plugin.call("Init", Home=str(home))
                await plugin.call("Create", ID="large", Parent="")
                (home / "layers/large/diff/large").write_bytes(LARGE)
                client = await stack.enter_async_context(plugin.client())
                await _ask(client)
                await client.head()
                started = time.monotonic()
            assert time.monotonic() - started < 60
            # What came of it has no end.
            received = b""
            with contextlib.suppress(ConnectionError):
                received = await asyncio.wait_for(client.reader.read(-1), 120)
            assert not received.endswith(b"\r\n0\r\n\r\n")
    assert not [log for log in logs if log["log_level"] == "error"]
