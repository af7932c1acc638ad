"""The converter as a process: what it tells, how it ends, and that a kill at any moment costs nothing but time."""

import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import run
from harness.processes import wait_until
from tests.support.converter import REPOSITORY, push_small
from tests.support.converter_process import ConverterProcess
from tests.support.image_publisher import ImagePublisher
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

_TAGS = ("v1", "v2", "v3", "v4")


@pytest_asyncio.fixture(loop_scope="session")
async def publisher() -> AsyncIterator[ImagePublisher]:
    """What is asked for images."""
    async with ImagePublisher.run() as publisher:
        yield publisher


@pytest_asyncio.fixture(loop_scope="session")
async def converter(
    registry: RegistryServer, publisher: ImagePublisher, tmp_path: Path
) -> AsyncIterator[ConverterProcess]:
    """A converter that does not run yet, and wishes all of a repository."""
    for tag in _TAGS:
        await push_small(registry.address, f"process/{tmp_path.name}:{tag}", tag.encode())
    converter = ConverterProcess(
        tmp_path, registry=registry.address, publishers={REPOSITORY: publisher.url}, token="a token of the tests"
    )
    image = f"{registry.address}/process/{tmp_path.name}"
    converter.wishes.write_text(
        f"version: 2\ndefaults: {{repositories: {REPOSITORY}}}\nimages:\n  - {{image: '{image}', tags: '*'}}\n"
    )
    yield converter
    await converter.daemon.kill()


async def _until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await wait_until(holds, what="what the test waits for")


def _states(publisher: ImagePublisher) -> list[str]:
    return [document["state"] for document in publisher.images.values()]


async def test_a_kill_at_every_state_costs_nothing_but_time(
    converter: ConverterProcess, publisher: ImagePublisher
) -> None:
    publisher.broken = 503
    await converter.start()
    await _until(lambda: len(publisher.requests) >= 1)  # something is wanted, and nothing asked for
    await converter.daemon.kill()
    publisher.broken, publisher.held = None, True
    await converter.start()
    await _until(lambda: bool(publisher.images))  # the first is asked for, maybe not recorded as such
    await converter.daemon.kill()
    await converter.start()
    await _until(lambda: len(publisher.images) == len(_TAGS))
    await converter.daemon.kill()
    publisher.release()
    await converter.start()

    async def all_published() -> bool:
        status = await converter.get("/v1/status")
        return bool(status["images"]["copies"]["published"] == len(_TAGS))

    await wait_until(all_published, what="everything is recorded as published")
    assert _states(publisher) == ["published"] * len(_TAGS)
    asked = {(body["name"], body["digest"]) for body in publisher.asked()}
    assert len(asked) == len(_TAGS)
    assert publisher.removed() == []
    assert 'converter_copies{state="published"} 4.0' in await converter.get("/metrics")
    assert (await converter.get("/healthz"))["status"] == "alive"
    status = await converter.get("/v1/status")
    assert status["images"]["late"] == []
    assert status["wishes"] == {"total": 1, "failing": []}
    command = (sys.executable, "-m", "services.converter", "run")
    other = await run(*command, env=converter.environment, accept=(1,))
    assert other.complaint.startswith("converter: another process uses")
    assert await converter.daemon.stop() == 0


async def test_one_round_says_by_its_status_whether_all_is_well(
    converter: ConverterProcess, publisher: ImagePublisher
) -> None:
    await converter.once("--dry-run")
    assert publisher.requests == []
    ended = await converter.once("--json")
    assert json.loads(ended.text)["success"] is True
    assert _states(publisher) == ["published"] * len(_TAGS)
    publisher.images.clear()
    publisher.broken = 503
    converter.wishes.write_text(converter.wishes.read_text() + "  - {image: '127.0.0.1:1/nobody/there', tags: v1}\n")
    ended = await converter.once("--json", accept=(6,))
    assert len(json.loads(ended.text)["problems"]) == 1
    assert "converter: 1 wishes or lists could not be looked into wholly" in ended.complaint
