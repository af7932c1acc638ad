"""What SQLite makes of pages that it has not written: it finds no fault, and the rows by each index."""

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import pytest

from services.repository.native.records import HashAlgorithm, path_hash
from services.repository.native.writer.catalog_rows import CatalogRows, empty_catalog, make_catalog
from services.repository.native.writer.rows import Row

_NUMBERS = (*(0, 1, -1, 2, 127, 128, -128, -129, 255, 32767, 32768), *(1 << 23, 1 << 31, 1 << 40, 1 << 47, 1 << 62))


def _made(rows: Sequence[Row]) -> "closing[sqlite3.Connection]":
    connection = sqlite3.connect(":memory:")
    connection.text_factory = bytes
    connection.deserialize(make_catalog(empty_catalog(HashAlgorithm.SHA1), CatalogRows(b"/top", rows, (), (), ())))
    return closing(connection)


def _row(number: int, chance: random.Random, *, longest: int) -> Row:
    name = b"%d" % number + bytes(chance.choices(range(1, 256), k=chance.choice((0, 9, 80))))
    xattr = chance.choice((None, b"", chance.randbytes(chance.randint(1, longest))))
    target = b"" if chance.random() < 0.8 else b"t" * chance.randint(1, longest)
    some = [chance.choice(_NUMBERS) for _ in range(7)]
    return (
        *(*path_hash(b"/top/" + name), *path_hash(b"/top/%d" % (number // 7)), some[0]),
        *(chance.choice((None, chance.randbytes(20))), some[1], some[2], some[3], chance.choice((None, some[4]))),
        *(4, name, target, some[5], some[6], xattr),
    )


# A page has some 8 rows or 40 entries of an index, and leads to 100 or 30 others; 129 rows have longer numbers.
@pytest.mark.parametrize(
    ("count", "longest"), [*((count, 1) for count in (1, 2, *range(38, 44), *range(76, 88), 127, 128)), (1500, 900)]
)
def test_rows_are_found_in_the_table_and_by_both_indexes(count: int, longest: int) -> None:
    chance = random.Random(count)  # noqa: S311 - the same rows every time
    rows = [_row(number, chance, longest=longest) for number in range(count)]
    with _made(rows) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [(b"ok",)]
        assert connection.execute("SELECT * FROM catalog ORDER BY rowid").fetchall() == rows
        wanted = rows[chance.randrange(count)]
        by_path = "SELECT name FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"
        assert connection.execute(by_path, wanted[:2]).fetchall() == [(wanted[11],)]
        by_parent = "SELECT name FROM catalog INDEXED BY idx_catalog_parent WHERE parent_1 = ? AND parent_2 = ?"
        beside = [(row[11],) for row in rows if row[2:4] == wanted[2:4]]
        assert connection.execute(by_parent, wanted[2:4]).fetchall() == beside


def test_numbers_of_rows_may_be_large() -> None:
    row = _row(0, random.Random(0), longest=1)  # noqa: S311 - the same row every time
    with _made([(number, number, *row[2:]) for number in range(33_000)]) as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [(b"ok",)]
        by_path = "SELECT rowid FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?"
        assert connection.execute(by_path, (32_999, 32_999)).fetchall() == [(33_000,)]


def test_what_does_not_fit_a_page_goes_on_in_others() -> None:
    for size in (*range(860, 920), *range(1880, 1960), 5000):
        rows: list[Row] = [
            (*path_hash(b"/t"), *path_hash(b""), 2, None, 4096, 0o40755, 0, 0, 33, b"t", b"", 0, 0, None),
            (*path_hash(b"/t/l"), *path_hash(b"/t"), 1, None, 9, 0o120777, 1, 0, 12, b"l", b"t" * size, 0, 0, None),
        ]
        with _made(rows) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [(b"ok",)], size
            assert connection.execute("SELECT * FROM catalog ORDER BY rowid").fetchall() == rows


def test_the_database_can_be_changed_afterwards() -> None:
    chance = random.Random(1)  # noqa: S311 - the same rows every time
    rows = [_row(number, chance, longest=1200) for number in range(400)]
    with _made(rows) as connection:
        connection.execute("DELETE FROM catalog WHERE rowid % 3 = 0")
        connection.executemany(f"INSERT INTO catalog VALUES ({', '.join('?' * 16)})", rows[2::3])  # noqa: S608
        assert connection.execute("PRAGMA integrity_check").fetchall() == [(b"ok",)]
        assert connection.execute("SELECT count(*) FROM catalog").fetchone() == (400,)
