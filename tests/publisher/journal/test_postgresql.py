"""A journal in PostgreSQL: what SQLite files have not, a server that goes away and comes back, and a password."""

import asyncio
import time
import traceback
import uuid

import pytest
from psycopg import AsyncConnection
from pydantic import SecretStr
from sqlalchemy.dialects.postgresql.psycopg import dialect

from harness.postgresql import PostgresqlServer
from harness.processes import wait_until
from services.common.database.interface import Statements
from services.common.image_name import ImageName
from services.publisher.errors import JournalError
from services.publisher.journal import layer_statements as statements
from services.publisher.journal import postgresql as postgresql_database
from services.publisher.journal.image_model import ImageWish
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState
from services.publisher.journal.postgresql import PostgresqlDatabase
from services.publisher.journal.version import VERSION
from tests.support.journal import claim, numbered, recorded


async def test_publishers_that_open_it_at_the_same_time_make_it_once(
    postgresql: PostgresqlServer, new_database: str
) -> None:
    async def announce(number: int) -> int:
        async with Journal(PostgresqlDatabase(new_database, password=postgresql.password)) as journal:
            return await journal.announce([numbered(number)])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(announce(number)) for number in range(3)]
    assert [task.result() for task in tasks] == [1] * 3


async def test_a_newer_version_says_whether_this_publisher_may_work_with_it(
    postgresql: PostgresqlServer, new_database: str
) -> None:
    async with Journal(PostgresqlDatabase(new_database, password=postgresql.password)):
        pass
    database = new_database.rpartition("/")[2]
    await postgresql.execute("UPDATE alembic_version SET version_num = version_num::int + 2", database=database)
    async with Journal(PostgresqlDatabase(new_database, password=postgresql.password)) as journal:
        assert await journal.announce([numbered(1)]) == 1
    await postgresql.execute("UPDATE alembic_version SET oldest = version_num::int - 1", database=database)
    with pytest.raises(
        JournalError,
        match=rf"has version {VERSION + 2}, which publishers from version {VERSION + 1} on .* {VERSION}: use",
    ):
        async with Journal(PostgresqlDatabase(new_database, password=postgresql.password)):
            pass


async def test_a_publisher_that_connects_anew_is_kept_out_by_a_version_that_was_made_meanwhile(
    postgresql: PostgresqlServer, new_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_database, "_PATIENCE", 0.5)
    name = new_database.rpartition("/")[2]
    async with Journal(PostgresqlDatabase(new_database, password=postgresql.password)) as journal:
        await journal.check()
        newer = "UPDATE alembic_version SET version_num = version_num::int + 1, oldest = version_num::int + 1"
        await postgresql.execute(newer, database=name)
        await journal.check()  # by a connection that would have kept that version from being made
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND"
        await postgresql.execute(f"{ended} pid <> pg_backend_pid()", database=name)
        with pytest.raises(JournalError):
            await journal.check()
        with pytest.raises(JournalError, match=rf"is not for publishers of version {VERSION} any more: install"):
            await journal.check()


async def test_one_that_hangs_in_the_middle_of_a_transaction_keeps_others_waiting_for_less_than_its_lease(
    postgresql: PostgresqlServer, empty_database: str
) -> None:
    async with (
        PostgresqlDatabase(empty_database, password=postgresql.password, lease=3) as hanging,
        PostgresqlDatabase(empty_database, password=postgresql.password) as other,
    ):

        async def hang() -> None:
            async with hanging.transaction() as run:
                async with asyncio.timeout(50), other.transaction():  # less than the limit of any statement
                    pass
                await run(statements.CHECK)

        with pytest.raises(JournalError, match="idle-in-transaction timeout"):
            await hang()
        await hanging.run(statements.CHECK)


async def test_a_password_that_is_refused_is_told_to_nobody(postgresql: PostgresqlServer) -> None:
    secret = uuid.uuid4().hex
    database = PostgresqlDatabase(postgresql.url("postgres"), password=SecretStr(secret))
    with pytest.raises(JournalError, match=r"publisher@127\.0.* cannot be opened: .*authentication failed") as raised:
        async with Journal(database):
            pass
    assert secret not in "".join(traceback.format_exception(raised.value))


@pytest.mark.asyncio(loop_scope="session")  # the one that the server was started in
async def test_a_server_that_is_started_anew_is_used_again(postgresql: PostgresqlServer, empty_database: str) -> None:
    async with Journal(PostgresqlDatabase(empty_database, password=postgresql.password)) as journal:
        await journal.announce([numbered(1)])
        await journal.claim()
        await postgresql.restart()

        async def works() -> bool:
            try:
                await journal.check()
                await journal.claim()  # again, where the server had not written it down
                await journal.unnamed.look(1)
                return await journal.advance([numbered(1)], LayerState.VERIFIED) == {numbered(1)}
            except JournalError:
                return False

        await wait_until(works, what="the journal works again")
        assert (await recorded(journal, numbered(1))).state is LayerState.VERIFIED


async def test_texts_and_lists_that_only_sqlite_would_take_are_kept(
    postgresql: PostgresqlServer, empty_database: str
) -> None:
    async with Journal(PostgresqlDatabase(empty_database, password=postgresql.password)) as journal:
        many = [numbered(number) for number in range(1000, 11_000)]
        await journal.announce(many)
        claimed = [await journal.claim() for _ in range(3)]
        assert [record and record.digest for record in claimed] == many[:3]
        await journal.published([many[0], *many[2:]], 1, notes={many[0]: ["a name with \0 in it"]})
        await journal.refused(many[1], "says \0")
        assert (await recorded(journal, many[0])).notes == ("a name with \N{REPLACEMENT CHARACTER} in it",)
        assert (await recorded(journal, many[1])).reason == "says \N{REPLACEMENT CHARACTER}"


async def test_publishers_claim_each_layer_once(postgresql: PostgresqlServer, empty_database: str) -> None:
    digests = [numbered(number) for number in range(100_000, 100_060)]

    async def claim(journal: Journal) -> list[str]:
        claimed = list[str]()
        while record := await journal.claim():
            claimed.append(record.digest)
        return claimed

    async with (
        Journal(PostgresqlDatabase(empty_database, password=postgresql.password)) as one,
        Journal(PostgresqlDatabase(empty_database, password=postgresql.password)) as other,
    ):
        await one.announce(digests)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(claim(journal)) for journal in (one, other) for _ in range(3)]
    claimed = [digest for task in tasks for digest in task.result()]
    assert len(claimed) == len(set(claimed))
    assert set(digests) <= set(claimed)


async def test_steps_of_machines_clocks_expire_nobody_and_lose_no_claim(
    postgresql: PostgresqlServer, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ImageName("quay.io/ns/tool:v1")
    async with (
        Journal(PostgresqlDatabase(empty_database, password=postgresql.password), alone=False) as one,
        Journal(PostgresqlDatabase(empty_database, password=postgresql.password), alone=False) as stepping,
    ):
        for journal in (one, stepping):
            await journal.publishers.enter(name=journal.publisher, lease=3600)
        await one.announce([numbered(1)])
        await claim(one, numbered(1))
        await one.images.ask(ImageWish(name=name, reference=name, digest=None, platforms=("linux/amd64",)))
        assert await one.images.claim(busy=(), full=())
        now = time.time()
        for days in (400, -400):
            stepped = now + days * 86400
            with monkeypatch.context() as patch:
                patch.setattr(time, "time", lambda: stepped)  # noqa: B023 - used in this round
                assert not (await stepping.publishers.renew(lease=3600)).abandoned
                left = await stepping.publishers.take_over()
                assert (left.verified, left.publishing) == ([], [])
                assert await stepping.claim() is None
                assert await stepping.images.claim(busy=(), full=()) is None
            assert not (await one.publishers.renew(lease=3600)).abandoned
            assert [publisher.gone for publisher in await one.publishers.list()] == [False, False]
        assert await one.held([numbered(1)]) == {numbered(1)}
        assert len(await one.images.claimed([name])) == 1


async def test_layers_are_found_by_their_index(postgresql: PostgresqlServer, new_database: str) -> None:
    password = postgresql.password
    async with (
        Journal(PostgresqlDatabase(new_database, password=password)) as journal,
        await AsyncConnection.connect(new_database, password=password.get_secret_value()) as connection,
    ):
        # So few that the server would rather read all of them than look for a hundred.
        await journal.announce(numbered(number) for number in range(5000))
        given = {
            "me": "this one",
            "digests": f'["{numbered(1)}"]',
            "sizes": "{}",
            "notes": "{}",
            "state": "verified",
            "now": 0,
        }
        for statement in (statements.ADVANCE, statements.PUBLISHED, statements.COMMITTED):
            text, values = Statements(dialect()).write(statement, {"revision": 1, **given})  # type: ignore[no-untyped-call]
            cursor = await connection.execute(f"EXPLAIN {text}".encode(), values)
            plan = [line for (line,) in await cursor.fetchall()]
            assert any("layers_pkey" in line or "layers_claimed" in line for line in plan), plan
            assert not any("Seq Scan on layers" in line for line in plan), plan
