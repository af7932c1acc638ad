"""What a plugin does now and then: it goes on whatever happens, and what can go goes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harness.processes import wait_until
from tests.graphdriver.plugin.conftest import Plugin


@pytest.fixture
async def kept(plugin: Plugin) -> AsyncIterator[Plugin]:
    """A plugin whose house is kept, and often."""
    keeping = asyncio.create_task(plugin.session.keep_house(0.02))
    yield plugin
    assert not keeping.done()
    keeping.cancel()
    await asyncio.wait([keeping])


async def _gone(link: Path) -> None:
    await wait_until(lambda: asyncio.sleep(0, not link.is_symlink()), what=f"{link} is removed")


async def test_what_no_union_needs_goes(kept: Plugin, home: Path) -> None:
    for name in ("first", "second"):
        link = home / "l" / name
        link.symlink_to("/cvmfs/test.example.org/layer")
        await kept.call("Create", ID=name, Parent="")
        await kept.call("Remove", ID=name)
        await _gone(link)


async def test_a_fault_ends_nothing(plugin: Plugin, home: Path) -> None:
    (home / "masks" / "no directory").touch()
    with capture_logs() as logs:
        keeping = asyncio.create_task(plugin.session.keep_house(0.02))

        async def failed_again() -> bool:
            return [entry["event"] for entry in logs].count("house_keeping_failed") > 1

        await wait_until(failed_again, what="house-keeping fails again")
        assert not keeping.done()
        keeping.cancel()
        await asyncio.wait([keeping])
