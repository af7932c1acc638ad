"""Publishers that share a journal in PostgreSQL: one works, another one waits and takes over."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from harness.postgresql import PostgresqlServer
from harness.processes import wait_until
from harness.s3 import S3Access
from services.publisher.errors import JournalError
from services.publisher.journal.tenure import Tenure
from tests.support.publisher import PublisherProcess, make_layer, upload

_NEVER = asyncio.Event()


async def test_a_publisher_waits_until_the_other_one_ends_or_it_is_told_to_stop(
    postgresql: PostgresqlServer, new_database: str
) -> None:
    stopped = asyncio.Event()
    async with (
        Tenure(new_database, password=postgresql.password) as first,
        Tenure(new_database, password=postgresql.password) as second,
        asyncio.TaskGroup() as group,
    ):
        assert await first.begin(_NEVER)
        waiting = group.create_task(second.begin(stopped))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):  # longer than from one look to the next
                await asyncio.shield(waiting)
        stopped.set()
        assert not await waiting
    async with Tenure(new_database, password=postgresql.password) as third:
        assert await third.begin(stopped) is False
        assert await third.begin(_NEVER)


@pytest.mark.asyncio(loop_scope="session")  # the one that the server was started in
async def test_a_publisher_whose_database_was_started_anew_ends(
    postgresql: PostgresqlServer, new_database: str
) -> None:
    async with Tenure(new_database, password=postgresql.password) as tenure:
        assert await tenure.begin(_NEVER)
        await postgresql.restart()
        with pytest.raises(JournalError, match=r"keeps other publishers out is lost: .*; start this publisher again"):
            await tenure.run()


async def test_a_publisher_that_hangs_loses_its_turn(postgresql: PostgresqlServer, new_database: str) -> None:
    async with (
        Tenure(new_database, password=postgresql.password, silence=timedelta(seconds=3)) as hanging,
        Tenure(new_database, password=postgresql.password) as other,
    ):
        assert await hanging.begin(_NEVER)
        assert await other.begin(_NEVER)
        with pytest.raises(JournalError, match="is lost"):
            await hanging.run()


def _publisher(
    name: str, postgresql: PostgresqlServer, database: str, bucket: S3Access, directory: Path
) -> PublisherProcess:
    """A publisher with a state and a spool of its own, and a repository in common with others of the directory."""
    secret = directory / "password"
    secret.write_text(postgresql.password.get_secret_value())
    settings = {
        "PUBLISHER_DATABASE": database,
        "PUBLISHER_DATABASE_PASSWORD_FILE": str(secret),
        "PUBLISHER_DIRECTORY": str(directory / "repository"),
        "PUBLISHER_SWEEP_INTERVAL": "0.2",
    }
    return PublisherProcess(directory / name, bucket, settings)


async def _waits(publisher: PublisherProcess) -> bool:
    log = publisher.daemon.log
    return log.exists() and "waiting for its end" in log.read_text()


@pytest.mark.parametrize("killed", [True, False])
async def test_a_second_publisher_takes_over(
    killed: bool,  # noqa: FBT001
    postgresql: PostgresqlServer,
    new_database: str,
    bucket: S3Access,
    tmp_path: Path,
) -> None:
    one, other = (_publisher(name, postgresql, new_database, bucket, tmp_path) for name in ("one", "other"))
    first, second = make_layer(tmp_path, "first"), make_layer(tmp_path, "second")

    async with one.ended(), other.ended(), asyncio.TaskGroup() as group:
        await one.start()
        await upload(bucket, first)
        await one.published(first)
        coming = group.create_task(other.start())
        await wait_until(lambda: _waits(other), what="the second publisher waits")
        if killed:
            await one.kill()
        else:
            assert await one.daemon.stop() == 0
        await upload(bucket, second)
        await coming
        await other.published(first, second)


async def test_a_publisher_that_waits_can_be_stopped(
    postgresql: PostgresqlServer, new_database: str, bucket: S3Access, tmp_path: Path
) -> None:
    publisher = _publisher("waiting", postgresql, new_database, bucket, tmp_path)
    async with Tenure(new_database, password=postgresql.password) as tenure, publisher.ended():
        assert await tenure.begin(_NEVER)
        await publisher.daemon.start(lambda: _waits(publisher))
        assert await publisher.daemon.stop() == 0, publisher.daemon.tail()
