"""Reference logs, read back by SQLite."""

import sqlite3
from contextlib import closing

import pytest

from services.common.repository_name import RepositoryName
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import ContentHash, HashAlgorithm, RefKind
from services.repository.native.writer.reflog import Reference, ReferenceLog

NAME = RepositoryName("log.example.org")
LOG = ReferenceLog()
FIRST = ContentHash.of(b"first")
SECOND = ContentHash.of(b"second", HashAlgorithm.SHAKE128)


def rows(content: bytes, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()  # noqa: S608


def test_a_new_log_has_the_form_of_the_stock_tools() -> None:
    log = LOG.add(None, [(FIRST, RefKind.CATALOG), (SECOND, RefKind.META)], name=NAME, timestamp=1000)
    assert rows(log, "properties") == [("fqrn", NAME), ("schema", "1.0"), ("schema_revision", "0")]
    assert sorted(rows(log, "refs")) == sorted([(str(FIRST), 0, 1000), (str(SECOND), 3, 1000)])
    assert log[16:18] == (1024).to_bytes(2, "big")
    assert log[18:20] == b"\x01\x01"  # no WAL


def test_adding_again_renews_the_time() -> None:
    log = LOG.add(None, [(FIRST, RefKind.CERTIFICATE)], name=NAME, timestamp=1000)
    log = LOG.add(log, [(FIRST, RefKind.CERTIFICATE), (SECOND, RefKind.HISTORY)], name=NAME, timestamp=2000)
    assert set(LOG.read(log, name=NAME)) == {
        Reference(FIRST, RefKind.CERTIFICATE, 2000),
        Reference(SECOND, RefKind.HISTORY, 2000),
    }


def test_removing_leaves_the_rest_and_no_holes() -> None:
    many = [(ContentHash.of(bytes([number])), RefKind.CATALOG) for number in range(100)]
    log = LOG.add(None, many, name=NAME, timestamp=1000)
    less = LOG.remove(log, [name for name, _ in many[1:]], name=NAME)
    assert LOG.read(less, name=NAME) == [Reference(many[0][0], RefKind.CATALOG, 1000)]
    assert len(less) == len(LOG.add(None, many[:1], name=NAME, timestamp=1000))


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_log_is_an_error(damage: bytes) -> None:
    with pytest.raises(BrokenRepositoryError, match=r"\.cvmfsreflog"):
        LOG.add(damage, [], name=NAME, timestamp=0)


def test_the_log_of_another_repository_is_refused() -> None:
    log = LOG.add(None, [], name=NAME, timestamp=0)
    with pytest.raises(BrokenRepositoryError, match=r"fqrn 'log\.example\.org', not 'other\.example\.org'"):
        LOG.read(log, name=RepositoryName("other.example.org"))


@pytest.mark.parametrize("row", [("x", 0, 1), (str(FIRST), 9, 1)])
def test_a_row_that_cannot_be_is_an_error(row: tuple[object, ...]) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(LOG.add(None, [], name=NAME, timestamp=0))
        connection.execute("INSERT INTO refs VALUES (?, ?, ?)", row)
        connection.commit()
        damaged = bytes(connection.serialize())
    with pytest.raises(BrokenRepositoryError, match="damaged"):
        LOG.read(damaged, name=NAME)
