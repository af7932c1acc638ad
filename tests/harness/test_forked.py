import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.processes import DaemonError, Service


class _Driver(Service):
    """The driver, which needs nothing but directories."""

    def __init__(self, directory: Path, **more: str) -> None:
        self.socket = directory / "socket"
        environment = {"GRAPHDRIVER_SOCKET": str(self.socket), "GRAPHDRIVER_STATE": str(directory / "state")}
        super().__init__("driver", "services.graphdriver", log=directory / "log", env=environment | more)

    async def listens(self) -> bool:
        return self.socket.is_socket()


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[_Driver]:
    driver = _Driver(tmp_path)
    assert driver.forks is not None
    await driver.start(driver.listens)
    try:
        yield driver
    finally:
        await driver.kill()


async def test_it_has_its_environment_and_a_session_of_its_own(driver: _Driver) -> None:
    assert os.getsid(driver.pid) == os.getpgid(driver.pid) == driver.pid
    assert driver.running


async def test_it_ends_orderly_and_all_who_wait_are_told(driver: _Driver) -> None:
    async with asyncio.TaskGroup() as group:
        ends = [group.create_task(driver.stop()) for _ in range(3)]
    assert [end.result() for end in ends] == [0, 0, 0]
    assert not driver.running


async def test_it_can_be_killed_and_started_again(driver: _Driver) -> None:
    await driver.kill()
    assert await driver.stop() == -signal.SIGKILL
    driver.socket.unlink()
    await driver.start(driver.listens)
    assert await driver.stop() == 0


async def test_it_can_be_killed_before_it_has_begun(tmp_path: Path) -> None:
    driver = _Driver(tmp_path)

    async def at_once() -> bool:
        return True

    await driver.start(at_once)
    async with asyncio.timeout(300):
        await driver.kill()
    assert not driver.running


async def test_it_says_what_an_ordinary_process_says(tmp_path: Path) -> None:
    said = []
    for forks in (Service.forks, None):
        driver = _Driver(tmp_path, GRAPHDRIVER_LOG_LEVEL="loud")
        driver.forks = forks
        with pytest.raises(DaemonError, match="driver ended with status 2") as raised:
            await driver.start(driver.listens)
        said.append(str(raised.value))
        driver.log.unlink()
    assert "GRAPHDRIVER_LOG_LEVEL" in said[0]
    assert said[0] == said[1]
