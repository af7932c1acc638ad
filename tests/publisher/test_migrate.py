"""`python -m services.publisher.migrate`: a journal becomes this version's, or moves from a file into PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select

from harness.postgresql import PostgresqlServer
from services.common.image_name import ImageName
from services.common.lock_file import LOCK_FILE, locked
from services.publisher.journal import schema, upgrade
from services.publisher.journal.journal import Journal
from services.publisher.journal.migrations.former import STEPS
from services.publisher.journal.model import LayerState
from services.publisher.journal.postgresql import PostgresqlDatabase
from services.publisher.journal.tables import watch
from services.publisher.journal.version import VERSION
from services.publisher.migrate import run
from tests.support.journal import numbered, recorded

_NAME = ImageName("quay.io/ns/tool:v1")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a publisher whose journal is a file; other settings are in the environment."""
    settings = {"REPOSITORY": "test.cern.ch", "EVENT_TOKEN": "a-token-of-the-tests", "STATE": str(tmp_path / "state")}
    for name, value in settings.items():
        monkeypatch.setenv(f"PUBLISHER_{name}", value)
    return tmp_path / "state"


@pytest.fixture(params=["sqlite", "postgresql"])
def journal(request: pytest.FixtureRequest, state: Path) -> str:
    """What a journal of each kind in turn is called, which does not exist yet."""
    if request.param == "sqlite":
        return f"the journal {state / 'journal.sqlite'}"
    request.getfixturevalue("database")
    url: str = request.getfixturevalue("new_database")
    return f"the journal {url}"


@pytest.fixture
def database(
    postgresql: PostgresqlServer, new_database: str, monkeypatch: pytest.MonkeyPatch, state: Path
) -> PostgresqlDatabase:
    """A database that has nothing yet, and that the settings name."""
    assert not state.exists()
    monkeypatch.setenv("PUBLISHER_DATABASE", new_database)
    monkeypatch.setenv("PUBLISHER_DATABASE_PASSWORD_FILE", str(postgresql.password_file))
    return PostgresqlDatabase(new_database, password=postgresql.password)


async def test_a_journal_is_made_once_and_a_check_tells_before(
    journal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def says(*arguments: str) -> tuple[int, str]:
        status = await asyncio.to_thread(run, arguments)
        said = capsys.readouterr()
        return status, said.out or said.err

    needed = (
        f"python -m services.publisher.migrate: {journal} does not exist yet, this publisher writes version {VERSION}\n"
    )
    assert await says("--check") == (3, needed)
    assert await says() == (0, f"{journal} was made, with version {VERSION}\n")
    assert await says() == (0, f"{journal} has version {VERSION} already\n")
    assert await says("--check") == (0, f"{journal} has version {VERSION}, nothing has to be done\n")


@pytest.mark.usefixtures("database")
async def test_of_two_at_the_same_time_one_waits_for_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.gather(*(asyncio.to_thread(run, ()) for _ in range(2))) == [0, 0]
    said = capsys.readouterr().out
    assert f"was made, with version {VERSION}\n" in said
    assert f"has version {VERSION} already\n" in said


async def test_a_database_of_the_first_version_on_postgresql_is_taken_over_once_nobody_reads_it(
    database: PostgresqlDatabase,
    new_database: str,
    postgresql: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as former:
        former.setattr(schema, "VERSION", 9)
        assert await asyncio.to_thread(run, ()) == 0
    layer = f"INSERT INTO layers (digest, state, announced_at, updated_at) VALUES ('{numbered(1)}', 'announced', 1, 1)"  # noqa: S608 - a digest
    await postgresql.execute(layer, database=new_database.rpartition("/")[2])
    password = postgresql.password.get_secret_value()
    with psycopg.connect(new_database, password=password) as copying, monkeypatch.context() as impatient:
        impatient.setattr(upgrade, "_PATIENCE", "100ms")
        copying.execute("LOCK TABLE layers IN ACCESS SHARE MODE")  # as pg_dump does
        assert await asyncio.to_thread(run, ()) == 1
        assert "as its tables are in use, for a back-up maybe: repeat this" in capsys.readouterr().err
    assert await asyncio.to_thread(run, ()) == 0
    assert f"was brought from version 9 to {VERSION}\n" in capsys.readouterr().out
    async with Journal(database) as journal:
        claimed = await journal.claim()
    assert claimed is not None
    assert claimed.digest == numbered(1)


def test_a_file_that_a_publisher_works_with_is_left_alone(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = state / "journal.sqlite"
    _make_former(path)
    with locked(state / LOCK_FILE, otherwise="the test"):
        assert run(()) == 1
        assert f"another process works with the journal {path}: stop it first" in capsys.readouterr().err
    assert run(["--check"]) == 3
    assert f"has version {len(STEPS)}, this publisher writes version {VERSION}" in capsys.readouterr().err
    assert run(()) == 0
    assert f"was brought from version {len(STEPS)} to {VERSION}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(["--check", "--from", __file__], "give one"), (["--from", __file__], "PUBLISHER_DATABASE does not say where to")],
)
@pytest.mark.usefixtures("state")
def test_arguments_that_mean_nothing_are_refused(
    arguments: Sequence[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert why in capsys.readouterr().err


async def test_a_journal_of_the_version_before_moves_into_a_database_with_all_that_it_has(
    state: Path, database: PostgresqlDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    source = state / "journal.sqlite"
    _make_former(source)
    move = ["--from", str(source)]
    async with database:
        assert await asyncio.to_thread(run, move) == 1
        assert "a publisher works with the journal postgresql://" in capsys.readouterr().err
    with locked(state / LOCK_FILE, otherwise="the test"):
        assert await asyncio.to_thread(run, move) == 1
        assert f"another process works with {source}: stop it first" in capsys.readouterr().err

    assert await asyncio.to_thread(run, move) == 0
    assert "rows (collecting 1, image_versions 1, images 1, layers 1003, pause 1, transactions 1, " in (
        capsys.readouterr().out
    )
    async with Journal(database) as journal:
        published, refused = await recorded(journal, numbered(1)), await recorded(journal, numbered(2))
        assert (published.state, published.revision, published.announced_at) == (LayerState.PUBLISHED, 7, 1.5)
        # PostgreSQL's texts hold no NUL.
        assert (refused.reason, refused.retryable) == ("ends with \N{REPLACEMENT CHARACTER}\n\t\\N", False)
        # What the former publisher was working on when it ended, and what waited.
        assert (await journal.publishers.take_over()).verified == [numbered(3)]
        claimed = [await journal.claim(), await journal.claim()]
        assert [record and record.digest for record in claimed] == [numbered(3), numbered(1000)]
        pause = await journal.paused()
        assert pause is not None
        assert pause.reason == "a disk"
        (watched,) = await database.run(select(watch.c.seconds))
        assert watched["seconds"] == 5.5
        version = await journal.versions.read(_NAME, numbered(9))
        assert version is not None
        assert version.documents == {"manifest.json": b"\x00\xff{}"}
        assert [token.token for token in await journal.transactions()] == ["open"]

    assert await asyncio.to_thread(run, move) == 1
    assert "is not empty, it has collecting: give a new database" in capsys.readouterr().err


def _make_former(path: Path) -> None:
    """Make a file as the last publisher before Alembic left it: layers in several states, and an image."""
    path.parent.mkdir(mode=0o700)
    layer = "INSERT INTO layers (digest, state, reason, revision, announced_at, updated_at) VALUES (?, ?, ?, ?, ?, 2)"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("".join(STEPS))
        connection.execute("BEGIN")
        connection.execute(layer, [numbered(1), "published", None, 7, 1.5])
        connection.execute(layer, [numbered(2), "failed", "ends with \0\n\t\\N", None, 1])
        connection.execute(layer, [numbered(3), "verified", None, None, 1])
        connection.executemany(layer, [(numbered(1000 + each), "announced", None, None, 2) for each in range(1000)])
        for statement in (
            "INSERT INTO pause VALUES (1, 3, 'a disk')",
            "INSERT INTO transactions VALUES ('open', NULL)",
            "INSERT INTO collecting VALUES ('x')",
            "UPDATE watch SET seconds = 5.5",
        ):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO images (name, registry, reference, platforms, priority, state, asked_at, updated_at)"
            " VALUES (?, 'quay.io', ?, '[\"linux/amd64\"]', 0, 'asked', 1, 1)",
            [_NAME, _NAME],
        )
        connection.execute(
            "INSERT INTO image_versions (name, digest, reference, platforms, images)"
            " VALUES (?, ?, ?, '[\"linux/amd64\"]', '[]')",
            [_NAME, numbered(9), _NAME],
        )
        connection.execute(
            "INSERT INTO version_documents VALUES (?, ?, 'manifest.json', ?)", [_NAME, numbered(9), b"\x00\xff{}"]
        )
        connection.execute("COMMIT")
