"""Publishers that share a journal in PostgreSQL: one works, another one waits and takes over."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import pytest

from harness.postgresql import PostgresqlServer
from harness.processes import wait_until
from harness.s3 import S3Access
from services.common.object_store.model import key_of
from services.publisher.errors import JournalError
from services.publisher.journal import tenure as tenures
from services.publisher.journal.tenure import Tenure
from tests.support.notifications import minio_event
from tests.support.publisher import PublisherProcess, make_layer, upload

_LEASE = timedelta(seconds=15)


class _Turns:
    """What waits for its turn, and has it until it is told to stop."""

    def __init__(self, turn: Tenure) -> None:
        self.held, self.stopped = asyncio.Event(), asyncio.Event()
        self._turn = turn

    async def run(self) -> None:
        async with self._turn.held():
            self.held.set()
            await self.stopped.wait()


async def test_one_has_the_turn_until_it_ends_and_who_waits_can_be_cancelled(
    postgresql: PostgresqlServer, new_database: str
) -> None:
    first, second, third = (
        _Turns(Tenure(new_database, password=postgresql.password, silence=_LEASE)) for _ in range(3)
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(first.run())
        await first.held.wait()
        waiting = [group.create_task(each.run()) for each in (second, third)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):  # longer than from one look to the next
                await asyncio.wait([group.create_task(each.held.wait()) for each in (second, third)])
        waiting[0].cancel()
        first.stopped.set()
        await third.held.wait()
        assert not second.held.is_set()
        third.stopped.set()
        second.held.set()


async def _lost(turn: Tenure, held: asyncio.Event) -> str:
    """Have the turn until it is lost; return what is said then."""
    with pytest.RaisesGroup(JournalError) as raised:
        async with turn.held():
            held.set()
            await asyncio.Event().wait()
    return str(raised.value.exceptions[0])


@pytest.mark.asyncio(loop_scope="session")  # the one that the server was started in
async def test_a_publisher_whose_database_was_started_anew_ends(
    postgresql: PostgresqlServer, new_database: str
) -> None:
    held = asyncio.Event()
    losing = asyncio.create_task(_lost(Tenure(new_database, password=postgresql.password, silence=_LEASE), held))
    await held.wait()
    await postgresql.restart()
    assert re.search(r"keeps other publishers from leading is lost: .*; start this publisher again", await losing)


async def test_a_publisher_that_hangs_loses_its_turn(
    postgresql: PostgresqlServer, new_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = timedelta(seconds=4)
    monkeypatch.setattr(tenures, "LOOK", 5.0)  # so that the connection is not used in time
    held = asyncio.Event()
    losing = asyncio.create_task(_lost(Tenure(new_database, password=postgresql.password, silence=silence), held))
    waiting = asyncio.create_task(held.wait())
    await asyncio.wait((losing, waiting), return_when=asyncio.FIRST_COMPLETED)
    assert held.is_set(), losing
    async with Tenure(new_database, password=postgresql.password, silence=_LEASE).held():
        assert "is lost" in await losing


def _publisher(
    name: str, postgresql: PostgresqlServer, database: str, bucket: S3Access, directory: Path
) -> PublisherProcess:
    """A publisher with a state and a spool of its own, and a repository in common with others of the directory."""
    settings = {
        "PUBLISHER_DATABASE": database,
        "PUBLISHER_DATABASE_PASSWORD_FILE": str(postgresql.password_file),
        "PUBLISHER_DIRECTORY": str(directory / "repository"),
    }
    return PublisherProcess(directory / name, bucket, settings)


@pytest.mark.parametrize("killed", [True, False])
async def test_a_second_publisher_serves_while_it_stands_by_and_takes_over(
    killed: bool,  # noqa: FBT001
    postgresql: PostgresqlServer,
    new_database: str,
    bucket: S3Access,
    tmp_path: Path,
) -> None:
    one, other = (_publisher(name, postgresql, new_database, bucket, tmp_path) for name in ("one", "other"))
    first, second, third = (make_layer(tmp_path, name) for name in ("first", "second", "third"))

    async with one.ended(), other.ended():
        await upload(bucket, first)
        await one.start()
        await one.published(first)
        await other.start()
        ready = await other.get("/readyz")
        assert (ready["ready"], ready["leads"], (await one.get("/readyz"))["leads"]) == (True, False, True)
        # What is told to the one that stands by is done by the one that leads.
        await upload(bucket, second)
        assert await other.announce(minio_event(bucket.settings.bucket, key_of(second.digest))) == 204
        await other.published(second)
        assert await other.post("/v1/publishing/pause") == 200

        async def paused() -> bool:
            return bool((await one.get("/readyz"))["paused"])

        await wait_until(paused, what="the one that leads knows of the pause")
        if killed:
            await one.kill()
        else:
            assert await one.daemon.stop() == 0
        await upload(bucket, third)
        assert await other.announce(minio_event(bucket.settings.bucket, key_of(third.digest))) == 204

        async def leads() -> bool:
            return bool((await other.get("/readyz"))["leads"])

        await wait_until(leads, what="the one that stood by leads")
        assert (await other.layer(third.digest))["state"] == "announced"
        assert await other.post("/v1/publishing/resume") == 200
        await other.published(first, second, third)
        assert await other.daemon.stop() == 0


async def test_a_publisher_that_stands_by_sweeps_when_it_is_asked_and_can_be_stopped(
    postgresql: PostgresqlServer, new_database: str, bucket: S3Access, tmp_path: Path
) -> None:
    publisher = _publisher("standing-by", postgresql, new_database, bucket, tmp_path)
    archive = make_layer(tmp_path, "layer")
    async with Tenure(new_database, password=postgresql.password, silence=_LEASE).held(), publisher.ended():
        await publisher.start()
        await upload(bucket, archive)
        assert await publisher.post("/v1/sweep") == 202
        await publisher.becomes(archive.digest, "announced")
        assert await publisher.daemon.stop() == 0, publisher.daemon.tail()
