"""The journal remembers every layer's state, whatever happens around it."""

import asyncio
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from services.publisher.errors import JournalError
from services.publisher.journal.journal import Journal
from services.publisher.journal.migrations.former import STEPS
from services.publisher.journal.model import LayerState, Pause, Selection
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.journal.version import VERSION
from services.repository.interface import OwnTransaction
from tests.support.journal import claim, numbered, recorded
from tests.support.journal_databases import Open
from tests.support.mounts import disk, mount, unmount_all_below
from tests.support.sqlite_files import cancel_opening, open_below


@pytest.fixture
async def journal(new_journal: Open) -> AsyncIterator[Journal]:
    async with Journal(new_journal()) as journal:
        yield journal


async def test_announced_layers_are_claimed_in_their_order(journal: Journal) -> None:
    for number in (3, 1, 2):
        assert await journal.announce([numbered(number)]) == 1
    claimed = [await journal.claim() for _ in range(4)]
    assert [record and record.digest for record in claimed] == [numbered(3), numbered(1), numbered(2), None]
    assert {record.state for record in claimed if record} == {LayerState.FETCHING}


async def test_a_repeated_announcement_changes_nothing(journal: Journal) -> None:
    assert await journal.announce([numbered(1), numbered(1), numbered(2)]) == 2
    assert await journal.announce([numbered(2), numbered(1)]) == 0
    await claim(journal, numbered(1), numbered(2))
    await journal.published([numbered(1)], 7)
    assert await journal.announce([numbered(1), numbered(2)]) == 0
    assert (await recorded(journal, numbered(1))).state is LayerState.PUBLISHED
    assert (await recorded(journal, numbered(2))).state is LayerState.FETCHING


async def test_the_highest_revision_is_known(journal: Journal) -> None:
    assert await journal.highest_revision() == 0
    await journal.announce([numbered(1), numbered(2)])
    assert await journal.highest_revision() == 0
    for revision in (7, 3):
        claimed = await journal.claim()
        assert claimed is not None
        await journal.published([claimed.digest], revision)
    assert await journal.highest_revision() == 7


async def test_an_announcement_makes_failed_layers_due_at_once(journal: Journal) -> None:
    await journal.announce([numbered(1), numbered(2)])
    await claim(journal, numbered(1), numbered(2))
    await journal.failed(numbered(1), "the store is down", due=time.time() + 1000)
    await journal.refused(numbered(2), "forged")
    assert await journal.claim() is None
    assert await journal.announce([numbered(1), numbered(2)]) == 2
    assert await journal.claim() is not None
    assert await journal.claim() is not None


async def test_a_sweep_does_not_bring_refused_layers_back(journal: Journal) -> None:
    await journal.announce([numbered(1), numbered(2)])
    await claim(journal, numbered(1), numbered(2))
    await journal.failed(numbered(1), "the store is down", due=time.time() + 1000)
    await journal.refused(numbered(2), "forged")
    assert await journal.announce_found([numbered(1), numbered(2), numbered(3)]) == 2
    assert (await recorded(journal, numbered(2))).state is LayerState.FAILED


async def test_a_failed_layer_waits_until_it_is_due(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    await journal.announce([numbered(1)])
    await claim(journal, numbered(1))
    due = time.time() + 1000
    await journal.failed(numbered(1), "the store is down", due=due)
    assert await journal.claim() is None
    assert await journal.next_due() == due
    monkeypatch.setattr(time, "time", lambda: due)
    record = await journal.claim()
    assert record is not None
    assert (record.attempts, record.reason) == (1, "the store is down")
    assert await journal.next_due() is None


async def test_failures_of_a_batch_count_for_none_of_its_layers(journal: Journal) -> None:
    await journal.announce([numbered(1), numbered(2)])
    await claim(journal, numbered(1), numbered(2))
    await journal.failed_together([numbered(1), numbered(2)], "publishing failed", due=0, share=1)
    record = await journal.claim()
    assert record is not None
    assert (record.attempts, record.share) == (0, 1)
    await journal.widen()
    assert (await recorded(journal, numbered(2))).share == 2
    await journal.published([record.digest], 3)
    record = await recorded(journal, record.digest)
    assert (record.state, record.revision, record.share, record.reason) == (LayerState.PUBLISHED, 3, None, None)


async def test_what_was_interrupted_is_announced_again(new_journal: Open) -> None:
    async with Journal(new_journal()) as journal:
        await journal.announce(map(numbered, range(6)))
        await claim(journal, *map(numbered, range(1, 6)))
        await journal.advance([numbered(2)], LayerState.VERIFIED)
        await journal.advance([numbered(3)], LayerState.PUBLISHING)
        await journal.published([numbered(4)], 1)
        await journal.refused(numbered(5), "forged")
    async with Journal(new_journal()) as journal:
        assert set((await journal.publishers.take_over()).verified) == {numbered(2), numbered(3)}
        states = [(await recorded(journal, numbered(number))).state for number in range(6)]
    assert states == [LayerState.ANNOUNCED] * 4 + [LayerState.PUBLISHED, LayerState.FAILED]


async def test_a_retry_brings_failed_and_published_layers_back(journal: Journal) -> None:
    await journal.announce([numbered(1), numbered(2), numbered(3)])
    await claim(journal, numbered(1), numbered(2), numbered(3))
    await journal.refused(numbered(1), "forged")
    await journal.published([numbered(2)], 1)
    await journal.advance([numbered(3)], LayerState.PUBLISHING)
    records = [await journal.restart(numbered(number)) for number in range(1, 5)]
    assert [record and record.state for record in records] == [
        LayerState.ANNOUNCED,
        LayerState.ANNOUNCED,
        LayerState.PUBLISHING,
        None,
    ]


async def test_pages_and_counts(journal: Journal) -> None:
    await journal.announce(map(numbered, range(5)))
    await claim(journal, numbered(0), numbered(3))
    await journal.published([numbered(0), numbered(3)], 1)
    page = await journal.page(Selection(), after="", limit=3)
    assert [record.digest for record in page] == [numbered(0), numbered(1), numbered(2)]
    assert [record.digest for record in await journal.page(Selection(), after=page[-1].digest, limit=3)] == [
        numbered(3),
        numbered(4),
    ]
    assert [
        record.digest for record in await journal.page(Selection(states=(LayerState.PUBLISHED,)), after="", limit=9)
    ] == [
        numbered(0),
        numbered(3),
    ]
    counts = (await journal.summary()).counts
    assert (counts[LayerState.ANNOUNCED], counts[LayerState.PUBLISHED], counts[LayerState.FAILED]) == (3, 2, 0)


async def test_transactions_are_remembered_until_none_is_open(new_journal: Open) -> None:
    async with Journal(new_journal()) as journal:
        await journal.begin("one")
        await journal.begin("two")
        await journal.works_on("12/34")
    async with Journal(new_journal()) as journal:
        assert await journal.transactions() == (
            OwnTransaction(token="one", process="12/34"),
            OwnTransaction(token="two", process="12/34"),
        )
        await journal.none_open()
        assert await journal.transactions() == ()


async def test_a_cancelled_caller_leaves_nothing_half_done(journal: Journal) -> None:
    announcing = asyncio.create_task(journal.announce(map(numbered, range(20_000))))
    await asyncio.sleep(0)
    announcing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await announcing
    counted = (await journal.summary()).counts[LayerState.ANNOUNCED]
    assert counted in (0, 20_000)
    assert await journal.announce([numbered(20_000)]) == 1


async def test_a_newer_version_says_whether_this_publisher_may_work_with_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"

    def become_newer(*, oldest: int | None) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?, oldest = ?", [str(VERSION + 2), oldest])
            connection.execute(f"PRAGMA user_version = {VERSION + 2}")

    async with Journal(SqliteDatabase(path)):
        pass
    become_newer(oldest=VERSION)
    async with Journal(SqliteDatabase(path)) as journal:
        assert await journal.announce([numbered(1)]) == 1
    for oldest, said in ((VERSION + 1, VERSION + 1), (None, VERSION + 2)):
        become_newer(oldest=oldest)
        with pytest.raises(
            JournalError,
            match=rf"journal\.sqlite has version {VERSION + 2}, which publishers from version {said} on .*: use a",
        ):
            async with Journal(SqliteDatabase(path)):
                pass
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 2,)


@pytest.mark.parametrize("version", range(1, len(STEPS) + 1))
async def test_journals_of_publishers_before_alembic_are_taken_over(tmp_path: Path, version: int) -> None:
    path = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for step in STEPS[:version]:
            connection.executescript(step)
        connection.execute(
            "INSERT INTO layers (digest, state, announced_at, updated_at) VALUES (?, 'announced', 1, 1)", [numbered(1)]
        )
    async with (
        Journal(SqliteDatabase(path)) as one,
        Journal(SqliteDatabase(path)),  # finds that there is nothing to do
    ):
        claimed = await one.claim()
        assert claimed is not None
        assert claimed.digest == numbered(1)
        await one.unnamed.look(5)
    # A former publisher would find a version that is not its own, and say so.
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


async def test_publishers_that_open_a_journal_at_the_same_time_make_it_once(tmp_path: Path) -> None:
    async def announce(number: int) -> int:
        async with Journal(SqliteDatabase(tmp_path / "journal.sqlite")) as journal:
            return await journal.announce([numbered(number)])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(announce(number)) for number in range(4)]
    assert [task.result() for task in tasks] == [1] * 4


async def test_a_journal_of_an_earlier_version_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(STEPS[0])
    connection.execute(
        "INSERT INTO layers (digest, state, revision, announced_at, updated_at) VALUES (?, 'published', 7, 1.5, 2.5)",
        [numbered(1)],
    )
    connection.executemany(
        "INSERT INTO layers (digest, state, reason, announced_at, updated_at) VALUES (?, 'failed', ?, 1, 1)",
        [(numbered(2), "the layer is for repository other.cern.ch, this publisher writes it not"), (numbered(3), "x")],
    )
    connection.execute("INSERT INTO transactions VALUES ('open', NULL)")
    connection.close()
    for _ in range(2):
        async with Journal(SqliteDatabase(path)) as journal:
            record = await recorded(journal, numbered(1))
            assert (record.state, record.revision, record.archive_size) == (LayerState.PUBLISHED, 7, None)
            assert (record.announced_at, record.updated_at) == (1.5, 2.5)
            assert [transaction.token for transaction in await journal.transactions()] == ["open"]
            assert await journal.paused() is None
            summary = await journal.summary()
            assert (summary.refused, summary.elsewhere) == (2, 1)


@pytest.mark.parametrize("step", ["PRAGMA user_version", "CREATE TABLE"])
async def test_an_opening_that_is_cancelled_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    database = SqliteDatabase(tmp_path / "journal.sqlite")
    await cancel_opening(database.__aenter__, at=step, monkeypatch=monkeypatch)
    assert open_below(tmp_path) == []


async def test_a_migration_that_cannot_be_finished_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    mount("-t", "tmpfs", "-o", "size=400k", "tmpfs", state)
    try:
        connection = sqlite3.connect(state / "journal.sqlite", isolation_level=None)
        connection.executescript(STEPS[0])
        connection.executemany(
            "INSERT INTO layers (digest, state, announced_at, updated_at) VALUES (?, 'announced', 1, 1)",
            [(numbered(number),) for number in range(1000)],
        )
        connection.close()
        with pytest.raises(JournalError, match="cannot be opened: database or disk is full"):
            async with Journal(SqliteDatabase(state / "journal.sqlite")):
                pass
        mount("-o", "remount,size=4m", state)
        async with Journal(SqliteDatabase(state / "journal.sqlite")) as journal:
            assert (await journal.summary()).counts[LayerState.ANNOUNCED] == 1000
            await journal.pause("it is of the new version now")
    finally:
        unmount_all_below(tmp_path)


async def test_a_pause_outlives_the_publisher(new_journal: Open) -> None:
    async with Journal(new_journal()) as journal:
        assert await journal.paused() is None
        await journal.pause("disk")
        first = await journal.paused()
        await journal.pause("disk and network")
    async with Journal(new_journal()) as journal:
        pause = await journal.paused()
        assert first is not None
        assert pause == Pause(since=first.since, reason="disk and network")
        await journal.resume()
        await journal.resume()
        assert await journal.paused() is None


async def test_the_oldest_layer_is_of_those_that_are_to_be_published(journal: Journal) -> None:
    assert (await journal.summary()).oldest is None
    for number in range(4):
        await journal.announce([numbered(number)])
    await claim(journal, numbered(0), numbered(1), numbered(2))
    await journal.refused(numbered(0), "forged")
    await journal.published([numbered(1)], 1)
    await journal.failed(numbered(2), "the store is down", due=0)
    summary = await journal.summary()
    assert summary.oldest == (await recorded(journal, numbered(2))).announced_at
    assert (summary.refused, summary.total) == (1, 4)
    before = time.time()
    await journal.restart(numbered(1))
    await claim(journal, numbered(2), numbered(3))
    await journal.published([numbered(2), numbered(3)], 1)
    # A published layer that is looked for again has not waited since it was first announced.
    assert before <= ((await journal.summary()).oldest or 0) <= time.time()


async def test_sizes_are_kept(journal: Journal) -> None:
    await journal.announce([numbered(1), numbered(2)])
    await claim(journal, numbered(1), numbered(2))
    await journal.verified(numbered(1), archive_size=100)
    await journal.published([numbered(1), numbered(2)], 1, tree_sizes={numbered(1): 1 << 40})
    await journal.restart(numbered(1))
    await claim(journal, numbered(1))
    await journal.published([numbered(1)], 2)
    sizes = [await recorded(journal, numbered(number)) for number in (1, 2)]
    assert [(record.archive_size, record.tree_size) for record in sizes] == [(100, 1 << 40), (None, None)]


async def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is a text, and it is longer than one might think" * 100)
    with pytest.raises(JournalError, match=r"journal\.sqlite cannot be opened: file is not a database"):
        async with Journal(SqliteDatabase(path)):
            pass


async def test_a_full_disk_is_an_error_that_the_check_sees(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", state)
    try:
        async with Journal(SqliteDatabase(state / "journal.sqlite")) as journal:
            await journal.check()
            with pytest.raises(JournalError, match=r"journal\.sqlite failed: database or disk is full"):
                await journal.announce(map(numbered, range(5000)))
            assert (await journal.summary()).counts[LayerState.ANNOUNCED] == 0
            (state / "rest").write_bytes(bytes(shutil.disk_usage(state).free))
            with pytest.raises(JournalError):
                await _check_many_times(journal)
    finally:
        unmount_all_below(tmp_path)


async def _check_many_times(journal: Journal) -> None:
    # Pages that are in use already can be written again.
    for _ in range(100):
        await journal.check()


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    async with Journal(SqliteDatabase(tmp_path / "state" / "journal.sqlite")) as journal:
        await journal.check()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


async def test_a_power_cut_takes_only_what_is_found_out_again(tmp_path: Path) -> None:
    with disk(tmp_path / "before") as cut_power:
        async with Journal(SqliteDatabase(tmp_path / "before" / "journal.sqlite")) as journal:
            await journal.announce(map(numbered, range(1, 4)))
            await claim(journal, numbered(1), numbered(2))
            await journal.published([numbered(1)], 7)
            await journal.refused(numbered(2), "forged")
            await journal.begin("token")
            await journal.announce([numbered(4)])
            for digest in (numbered(3), numbered(4)):
                await journal.claim()
                await journal.verified(digest, archive_size=1)
                await journal.advance([digest], LayerState.PUBLISHING)
            await journal.works_on("a process")
            cut_power(tmp_path / "after")
        async with Journal(SqliteDatabase(tmp_path / "after" / "journal.sqlite")) as journal:
            assert [own.token for own in await journal.transactions()] == ["token"]
            await journal.publishers.take_over()
            records = [await recorded(journal, numbered(number)) for number in range(1, 5)]
    assert [(record.state, record.revision, record.reason) for record in records] == [
        (LayerState.PUBLISHED, 7, None),
        (LayerState.FAILED, None, "forged"),
        (LayerState.ANNOUNCED, None, None),
        (LayerState.ANNOUNCED, None, None),
    ]
