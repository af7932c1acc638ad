"""A check tells what it finds while it goes on, runs alone, and ends with whoever asked for it."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from harness.processes import wait_until
from services.common.digest import Digest
from services.common.object_store.errors import StoreUnavailableError
from services.publisher.app import create_app
from services.publisher.consistency.check import CheckProgress, ConsistencyCheck
from services.publisher.consistency.checks import Checks
from services.publisher.consistency.model import Disagreement, Finding
from services.publisher.handlers.consistency import ConsistencyHandler
from services.publisher.handlers.token import TokenCheck
from services.publisher.metrics import Metrics
from tests.support.publisher import TOKEN

Client = TestClient[Any, Any]

_BEARER = {"Authorization": f"Bearer {TOKEN}"}
_DIGEST = Digest("a" * 64)


class _Held:
    """A check that finds one layer, and goes on when it is let to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.running = 0

    async def run(self, progress: CheckProgress) -> AsyncGenerator[Finding, None]:
        self.running += 1
        try:
            progress.layers = 7
            progress.found[Disagreement.LOST] += 1
            yield Finding(_DIGEST, Disagreement.LOST)
            await self.go_on.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1


@asynccontextmanager
async def _serving(check: _Held) -> AsyncIterator[Client]:
    checks = Checks(check=cast("ConsistencyCheck", check), metrics=Metrics(), interval=0)
    handler = ConsistencyHandler(token=TokenCheck(SecretStr(TOKEN)), checks=checks)
    async with TestClient(TestServer(create_app(handler.routes()))) as client:
        yield client


async def test_findings_come_while_it_goes_on_and_a_second_check_is_refused() -> None:
    check = _Held()
    async with _serving(check) as client, client.post("/v1/check", headers=_BEARER) as response:
        first = json.loads(await response.content.readline())
        assert (first["digest"], first["kind"], first["harmless"]) == (_DIGEST, "lost", False)
        assert json.loads(await response.content.readline())["progress"]["layers"] == 7
        async with client.post("/v1/check", headers=_BEARER) as second:
            assert (second.status, second.headers["Retry-After"]) == (409, "10")
            assert "running already" in (await second.json())["error"]
        check.go_on.set()
        *_, last = (await response.content.read()).splitlines()
        assert json.loads(last) == {"summary": {"layers": 7, "images": 0, "found": {"lost": 1}}}
        async with client.post("/v1/check", headers=_BEARER) as third:
            assert third.status == 200


async def test_a_failure_is_the_last_that_is_told() -> None:
    check = _Held()
    check.error = StoreUnavailableError("the store is down")
    check.go_on.set()
    async with _serving(check) as client, client.post("/v1/check", headers=_BEARER) as response:
        *_, last = (await response.read()).splitlines()
    assert json.loads(last) == {"error": "the store is down"}


async def test_a_check_ends_with_whoever_asked_for_it() -> None:
    check = _Held()
    async with _serving(check) as client:
        response = await client.post("/v1/check", headers=_BEARER)
        await response.content.readline()
        response.close()
        await wait_until(lambda: asyncio.sleep(0, check.running == 0), what="the check has ended")
        check.go_on.set()
        async with client.post("/v1/check", headers=_BEARER) as another:
            assert another.status == 200
