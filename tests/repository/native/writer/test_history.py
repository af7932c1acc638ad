"""Tag databases, read back by SQLite."""

import sqlite3
from contextlib import closing

import pytest

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import ContentHash
from services.repository.native.writer.head import Root
from services.repository.native.writer.history import History, Tag, TagName

NAME = RepositoryName("tags.example.org")
HISTORY = History()
NULL = ContentHash.null()


def root(revision: int) -> Root:
    return Root(
        catalog=ContentHash.of(bytes([revision])), size=1000 + revision, revision=revision, published=9000 + revision
    )


def tag(name: str, revision: int) -> Tag:
    of = root(revision)
    return Tag(
        name=name, root=of.catalog, size=of.size, revision=revision, timestamp=of.published, description="by hand"
    )


def rows(content: bytes, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()  # noqa: S608


def test_a_new_database_has_the_form_of_the_stock_tools() -> None:
    first = HISTORY.advance(None, previous=NULL, name=NAME, root=root(1))
    assert rows(first, "properties") == [
        ("fqrn", NAME),
        ("previous_revision", "0" * 40),
        ("schema", "1.0"),
        ("schema_revision", "3"),
    ]
    assert rows(first, "branches") == [("", None, 0)]
    assert rows(first, "recycle_bin") == []
    assert rows(first, "tags") == [("trunk", str(root(1).catalog), 1, 9001, 0, "current HEAD", 1001, "")]
    assert first[16:18] == (1024).to_bytes(2, "big")
    assert first[18:20] == b"\x01\x01"  # no WAL


def test_the_trunk_moves_and_leaves_an_undo_target() -> None:
    database = None
    for revision in (1, 2, 3):
        previous = NULL if database is None else ContentHash.of(database)
        database = HISTORY.advance(database, previous=previous, name=NAME, root=root(revision))
        if revision == 2:
            database = HISTORY.add(database, tag("release", 2), previous=ContentHash.of(b"x"), name=NAME)
    assert database is not None
    assert rows(database, "tags") == [
        ("release", str(root(2).catalog), 2, 9002, 0, "by hand", 1002, ""),
        ("trunk", str(root(3).catalog), 3, 9003, 0, "current HEAD", 1003, ""),
        ("trunk-previous", str(root(2).catalog), 2, 9002, 0, "default undo target", 1002, ""),
    ]
    assert [found.name for found in HISTORY.read(database, name=NAME)] == ["trunk", "release", "trunk-previous"]


def test_tags_are_added_replaced_and_removed_and_the_predecessor_is_named() -> None:
    database = HISTORY.advance(None, previous=NULL, name=NAME, root=root(1))
    database = HISTORY.add(database, tag("a", 1), previous=ContentHash.of(b"1"), name=NAME)
    database = HISTORY.add(database, tag("a", 2), previous=ContentHash.of(b"2"), name=NAME)
    database = HISTORY.add(database, tag("b", 3), previous=ContentHash.of(b"3"), name=NAME)
    assert [(found.name, found.revision) for found in HISTORY.read(database, name=NAME)] == [
        ("b", 3),
        ("a", 2),
        ("trunk", 1),
    ]
    database = HISTORY.remove(database, ["a", "b"], previous=ContentHash.of(b"4"), name=NAME)
    assert [found.name for found in HISTORY.read(database, name=NAME)] == ["trunk"]
    assert ("previous_revision", str(ContentHash.of(b"4"))) in rows(database, "properties")


def test_what_others_have_written_stays() -> None:
    database = HISTORY.advance(None, previous=NULL, name=NAME, root=root(1))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(database)
        connection.execute("INSERT INTO branches VALUES ('side', '', 1)")
        connection.execute("INSERT INTO tags VALUES ('s', ?, 1, 1, 4, 'their own', 1, 'side')", ("ab" * 20,))
        connection.commit()
        database = bytes(connection.serialize())
    database = HISTORY.advance(database, previous=NULL, name=NAME, root=root(2))
    assert ("s", "ab" * 20, 1, 1, 4, "their own", 1, "side") in rows(database, "tags")
    assert ("side", "", 1) in rows(database, "branches")


@pytest.mark.parametrize("name", ["v1.0", "a/b:c_d-e", "x" * 255])
def test_names_of_tags(name: str) -> None:
    assert TagName(name) == name


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 256, "a\n", "trunk", "trunk-previous"])
def test_what_is_no_name_of_a_tag(name: str) -> None:
    with pytest.raises(InvalidValueError):
        TagName(name)


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_database_is_an_error(damage: bytes) -> None:
    with pytest.raises(BrokenRepositoryError, match="the tag database"):
        HISTORY.advance(damage, previous=NULL, name=NAME, root=root(1))


def test_the_database_of_another_repository_is_refused() -> None:
    database = HISTORY.advance(None, previous=NULL, name=NAME, root=root(1))
    with pytest.raises(BrokenRepositoryError, match="fqrn"):
        HISTORY.read(database, name=RepositoryName("other.example.org"))
