from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from services.converter.hints.factory import Hints, open_hints
from services.converter.hints.journal import HintJournal
from services.converter.hints.settings import HintsSettings
from tests.support.hints import Everything, write_endpoints


@pytest.fixture
def endpoints(tmp_path: Path) -> Path:
    write_endpoints(tmp_path / "endpoints.yaml")
    return tmp_path / "endpoints.yaml"


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry()


@pytest_asyncio.fixture
async def hints(endpoints: Path, tmp_path: Path, metrics: CollectorRegistry) -> AsyncIterator[Hints]:
    settings = HintsSettings(hints_endpoints=endpoints, hints_pending=20, hints_patience=60)
    journal = HintJournal(tmp_path / "state" / "hints.sqlite", limit=settings.hints_pending)
    async with open_hints(settings, journal=journal, matcher=Everything(), metrics=metrics) as hints:
        yield hints


@pytest_asyncio.fixture
async def client(hints: Hints) -> AsyncIterator[TestClient[Any, Any]]:
    app = web.Application()
    app.add_routes(hints.routes)
    async with TestClient(TestServer(app)) as client:
        yield client
