"""Several converters with one PostgreSQL database: one works, any takes webhooks, and another one takes over."""

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from harness.postgresql import PostgresqlServer
from harness.processes import wait_until
from tests.support.converter import REPOSITORY, push_small
from tests.support.converter_process import ConverterProcess
from tests.support.image_publisher import ImagePublisher
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

_SECRET = "of-the-jobs-0123456789"  # noqa: S105 - of a test


class _Site:
    """Two converters, a registry, a publisher, and a database."""

    def __init__(
        self, directory: Path, registry: RegistryServer, publisher: ImagePublisher, server: PostgresqlServer, url: str
    ) -> None:
        self.registry, self.publisher, self._server, self._database = registry, publisher, server, url
        self.image = f"several/{directory.name}"
        self.one, self.other = (self._converter(directory, name) for name in ("one", "other"))
        wished = {
            "version": 2,
            "defaults": {"repositories": REPOSITORY},
            "images": [{"image": f"{registry.address}/{self.image}", "tags": "*"}],
        }
        (directory / "wishes.yaml").write_text(json.dumps(wished))
        jobs = {"name": "jobs", "kind": "sync", "secret": _SECRET}
        (directory / "endpoints.yaml").write_text(json.dumps({"endpoints": [jobs]}))

    def _converter(self, directory: Path, name: str) -> ConverterProcess:
        return ConverterProcess(
            directory / name,
            registry=self.registry.address,
            publishers={REPOSITORY: self.publisher.url},
            token="a token of the tests",
            settings={
                "CONVERTER_DATABASE": self._database,
                "CONVERTER_DATABASE_PASSWORD_FILE": str(self._server.password_file),
                "CONVERTER_WISH_LISTS": str(directory / "wishes.yaml"),
                "CONVERTER_HINTS_ENDPOINTS": str(directory / "endpoints.yaml"),
                "CONVERTER_HINTS_PATIENCE": "60",
                # From the first poll on, nothing but hints tell of what is new.
                "CONVERTER_INTERVAL": "86400",
            },
        )

    async def push(self, tag: str) -> None:
        """Push an image, and tell nobody."""
        await push_small(self.registry.address, f"{self.image}:{tag}", tag.encode())

    async def tell(self, converter: ConverterProcess, tag: str) -> None:
        """Tell a converter that an image has been pushed."""
        url, headers = f"{converter.url}/v1/sync", {"Authorization": f"Bearer {_SECRET}"}
        body = {"image": f"{self.registry.address}/{self.image}:{tag}"}
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
            assert answer.status == 202
            assert (await answer.json())["taken"] == 1

    async def asked(self, *tags: str) -> None:
        """Wait until the publisher has been asked for these."""
        names = {f"{self.registry.address}/{self.image}:{tag}" for tag in tags}

        async def all_of_them() -> bool:
            return names <= {body["name"] for body in self.publisher.asked()}

        await wait_until(all_of_them, what=f"{tags} are asked for")

    async def works(self, converter: ConverterProcess) -> None:
        """Wait until a converter has its turn."""

        async def has_turn() -> bool:
            return bool((await converter.get("/v1/status"))["works"])

        await wait_until(has_turn, what="the converter works")

    async def end_turn(self) -> None:
        """End the session that has the turn, as the server does when it is silent."""
        await self._server.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE locktype = 'advisory' AND granted AND datname = current_database()",
            database=self._database.rpartition("/")[2],
        )


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    registry: RegistryServer, postgresql: PostgresqlServer, empty_state: str, tmp_path: Path
) -> AsyncIterator[_Site]:
    """Everything; the converters do not run yet."""
    async with ImagePublisher.run() as publisher, AsyncExitStack() as stack:
        site = _Site(tmp_path, registry, publisher, postgresql, empty_state)
        for converter in (site.one, site.other):
            stack.push_async_callback(converter.daemon.kill)
        await site.push("v1")
        yield site


async def test_another_converter_takes_over_from_one_that_hangs_or_dies(site: _Site) -> None:
    one, other = site.one, site.other
    await one.start()
    await site.works(one)
    await site.asked("v1")
    await other.start()
    status = await other.get("/v1/status")
    assert (status["works"], status["images"]["copies"]["published"]) == (False, 1)

    # A hint to the one that stands by reaches the one that works.
    await site.push("v2")
    await site.tell(other, "v2")
    await site.asked("v2")
    assert "converter_works 0.0" in await other.get("/metrics")

    # One that hangs loses its turn, and ends when it goes on. What it was told meanwhile is not lost.
    await site.push("v3")
    os.kill(one.daemon.pid, signal.SIGSTOP)
    await site.tell(other, "v3")
    await site.end_turn()
    await site.works(other)
    await site.asked("v3")
    os.kill(one.daemon.pid, signal.SIGCONT)

    async def ended() -> bool:
        return not one.daemon.running

    await wait_until(ended, what="the converter that has lost its turn ends")
    assert await one.daemon.stop() == 1
    assert "the session that keeps other converters out is lost" in one.daemon.tail()

    # One that is killed loses its turn at once.
    await one.start()
    assert not (await one.get("/v1/status"))["works"]
    await site.push("v4")
    await site.tell(one, "v4")
    await other.daemon.kill()
    await site.works(one)
    await site.asked("v1", "v2", "v3", "v4")
    assert site.publisher.removed() == []
    refused = await other.once(accept=(1,))
    assert refused.complaint.endswith(
        "converter: another converter works with the same database: stop it, or leave the work to it"
    )
    assert await one.daemon.stop() == 0
