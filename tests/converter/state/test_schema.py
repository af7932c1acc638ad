"""Statements name the tables that migrations make, in both kinds of databases; earlier files become new ones."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, create_engine

from harness.postgresql import PostgresqlServer
from services.common.database.connecting import connection_parameters
from services.common.database.postgresql import blocking_engine
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.converter.errors import StateError
from services.converter.hints.tables import metadata as hint_tables
from services.converter.state import migrations
from services.converter.state.migrations.former import STEPS
from services.converter.state.postgresql import PostgresqlState
from services.converter.state.schema import migrate
from services.converter.state.sqlite import SqliteState
from services.converter.state.state import State
from services.converter.state.tables import metadata as state_tables
from services.converter.state.version import VERSION
from tests.support.schema import differences


def _engine(url: str, server: PostgresqlServer) -> Engine:
    return blocking_engine(connection_parameters(url, server.password, program="test"))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_tables_are_those_that_statements_name(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path / 'state.sqlite'}")
    else:
        engine = _engine(request.getfixturevalue("new_database"), request.getfixturevalue("postgresql"))
    with engine.begin() as connection:
        migrate(connection, state="the state")
        tables = MetaData()
        for table in (*state_tables.sorted_tables, *(hint_tables.sorted_tables if kind == "postgresql" else ())):
            table.to_metadata(tables)
        assert differences(connection, tables) == []
    engine.dispose()


def test_the_version_is_that_of_the_last_migration() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_heads() == [str(VERSION)]


@pytest.mark.parametrize("version", [1, 2])
async def test_a_file_of_an_earlier_converter_is_read_on(version: int, tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    name, digest = ImageName("registry.example.org/physics/tool:1"), Digest("a" * 64)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for step in STEPS[:version]:
            connection.executescript(step)
        connection.execute(
            "INSERT INTO images (name, digest, changed_at, checked_at, missing) VALUES (?, ?, 1, 1, 2)", (name, digest)
        )
        connection.execute(
            "INSERT INTO copies (name, repository, wish, source, state, wanted, wanted_at)"
            " VALUES (?, 'images.example.org', 'wish', 'list.yaml', 'wanted', ?, 1)",
            (name, digest),
        )
    for _ in range(2):
        async with State(SqliteState(path)) as state:
            (copy,) = await state.copies.due(10)
            assert (copy.name, copy.wanted) == (name, digest)
            (gone,) = await state.copies.removable()
            assert (gone.missing, gone.emptied) == (2, False)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


async def test_a_newer_state_is_refused(tmp_path: Path, postgresql: PostgresqlServer, new_database: str) -> None:
    newer = "UPDATE alembic_version SET version_num = '99'"
    file, shared = SqliteState(tmp_path / "state.sqlite"), PostgresqlState(new_database, password=postgresql.password)
    for database in (file, shared):
        async with State(database):
            pass
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as connection:
        connection.executescript(f"{newer}; PRAGMA user_version = 99")
    await postgresql.execute(newer, database=new_database.rpartition("/")[2])
    for database in (file, shared):
        with pytest.raises(StateError, match=rf"has version 99, this converter reads up to {VERSION}: use the conver"):
            async with State(database):
                pass


async def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StateError, match=r"the state .*state\.sqlite cannot be opened: file is not a database"):
        async with State(SqliteState(tmp_path / "state.sqlite")):
            pass
