"""A web server of wish lists."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.authorities import authority
from tests.support.list_server import ListServer
from tests.support.registries import Authority

__all__ = ["authority", "list_server"]


@pytest_asyncio.fixture
async def list_server(authority: Authority) -> AsyncIterator[ListServer]:
    """A web server that has a wish list."""
    async with ListServer.listening(authority) as server:
        yield server
