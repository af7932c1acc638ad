"""A real registry's own notifications, and a real kill."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from services.converter.hints.factory import Hints, open_hints
from services.converter.hints.journal import HintJournal
from services.converter.hints.settings import HintsSettings
from services.registry.client import RegistryClient
from services.registry.documents import INDEX_TYPES, MANIFEST_TYPES
from services.registry.reference import ImageReference
from tests.support.hints import SECRETS, Everything, distribution_event, envelope, hint
from tests.support.oci import write_image
from tests.support.registries import RegistryServer, impatient
from tests.support.tars import archive, member

_BEARER = f"Bearer {SECRETS['distribution']}"
_REGISTRY = "registry.example.org:5000"


async def test_pushes_and_deletions_in_a_real_registry_are_hints(
    hints: Hints, tmp_path: Path, metrics: CollectorRegistry
) -> None:
    app = web.Application()
    app.add_routes(hints.routes)
    write_image(tmp_path / "image", (archive(member(b"file", b"content")),), tag="v1")
    async with TestServer(app) as server:
        endpoint = {
            "name": "converter",
            "url": str(server.make_url("/v1/hints/distribution")),
            "headers": {"Authorization": [_BEARER]},
            "timeout": "5s",
            "threshold": 1000,
            "backoff": "100ms",
        }
        async with (
            RegistryServer.run(tmp_path / "registry", notifications=[endpoint]) as registry,
            RegistryClient(options=impatient(read_timeout=60.0, connect_timeout=60.0)) as client,
        ):
            await registry.push(f"oci:{tmp_path / 'image'}:v1", "physics/tool:v1", "--preserve-digests")
            assert await hints.journal.next() == hint(f"{_REGISTRY}/physics/tool:v1")
            await hints.journal.done(hint(f"{_REGISTRY}/physics/tool:v1"))

            # An index is pushed after what it names, and is one hint all the same.
            reference = ImageReference.parse(f"{registry.address}/physics/tool:v1")
            manifest = await client.manifest(reference)
            entry = {"mediaType": MANIFEST_TYPES[0], "digest": manifest.digest.oci, "size": len(manifest.content)}
            index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [entry]}
            tagged = ImageReference.parse(f"{registry.address}/physics/tool:multi")
            digest = await client.push_manifest(tagged, json.dumps(index).encode(), INDEX_TYPES[0])
            assert await hints.journal.next() == hint(f"{_REGISTRY}/physics/tool:multi")
            await hints.journal.done(hint(f"{_REGISTRY}/physics/tool:multi"))

            async with (
                aiohttp.ClientSession() as session,
                session.delete(f"http://{registry.address}/v2/physics/tool/manifests/{digest.oci}") as gone,
            ):
                assert gone.status == 202
            assert await hints.journal.next() == hint(f"{_REGISTRY}/physics/tool:multi")
    for outcome, count in (("taken", 3), ("malformed", None)):
        labels = {"endpoint": "distribution", "outcome": outcome}
        assert metrics.get_sample_value("converter_hint_events_total", labels) == count


@asynccontextmanager
async def _service(state: Path, endpoints: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.support.hints_service", str(state), str(endpoints)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        url = ""
        while not url.startswith("http"):  # what it logs goes there, too
            line = await process.stdout.readline()
            assert line, "it has ended"
            url = line.decode().strip()
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_what_was_answered_is_there_after_a_kill(tmp_path: Path, endpoints: Path) -> None:
    state, answered = tmp_path / "state", []
    async with _service(state, endpoints) as (process, url), aiohttp.ClientSession() as session:
        for number in range(50):
            body = envelope(distribution_event(tag=f"v{number}"))
            async with session.post(
                f"{url}/v1/hints/distribution", data=body, headers={"Authorization": _BEARER}
            ) as answer:
                assert answer.status == 202
            answered.append(hint(f"{_REGISTRY}/physics/tool:v{number}"))
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with HintJournal(state / "hints.sqlite", limit=1000) as journal:
        assert [await journal.next() for _ in answered] == answered
        assert journal.pending == len(answered)


async def test_a_burst_is_taken_whole(tmp_path: Path, endpoints: Path) -> None:
    settings = HintsSettings(hints_endpoints=endpoints, hints_patience=60)
    journal = HintJournal(tmp_path / "state" / "hints.sqlite", limit=settings.hints_pending)
    async with open_hints(settings, journal=journal, matcher=Everything(), metrics=CollectorRegistry()) as hints:
        app = web.Application()
        app.add_routes(hints.routes)
        bodies = [envelope(distribution_event(tag=f"v{number}")) for number in range(1000)]

        async def send(session: aiohttp.ClientSession, url: str) -> None:
            while bodies:
                async with session.post(url, data=bodies.pop(), headers={"Authorization": _BEARER}) as answer:
                    assert answer.status == 202

        async with TestServer(app) as server, aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(send(session, str(server.make_url("/v1/hints/distribution"))))
        assert hints.journal.pending == 1000
