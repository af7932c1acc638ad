"""SQLite files that want to do harm to whoever reads their table `properties`."""

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

__all__ = ["HOSTILE", "Hostile"]


@dataclass(frozen=True)
class Hostile:
    """A file, and what its reader is told."""

    name: str
    build: Callable[[], bytes]
    says: str
    """Regular expression."""


def _made(*statements: str) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA page_size = 4096")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        return connection.serialize()


def _hostile(name: str, says: str, *statements: str) -> Hostile:
    return Hostile(name, lambda: _made(*statements), says)


_PAGE: Final = 4096
_PLAIN: Final = ("CREATE TABLE properties (key TEXT, value TEXT)", "INSERT INTO properties VALUES ('a', 'b')")


def pages_in_circles(depth: int = 12, width: int = 400) -> bytes:
    """Return a file whose table has every page many times over: some rows, shown as 400 to the power of 12."""
    content = _made(*_PLAIN)
    root = content[_PAGE : 2 * _PAGE]
    pages = [content[:_PAGE]]
    pages += [_inner(number + 1, width) for number in range(2, depth + 2)]
    pages.append(root)
    whole = bytearray(b"".join(pages))
    whole[28:32] = struct.pack(">I", len(pages))
    return bytes(whole)


def _inner(below: int, width: int) -> bytes:
    """Return an inner page of a table, all of whose children are one page."""
    cells = [struct.pack(">IB", below, 1)] * width
    start = _PAGE - 5 * width
    pointers = b"".join(struct.pack(">H", start + 5 * number) for number in range(width))
    page = struct.pack(">BHHHBI", 5, 0, width, start, 0, below) + pointers
    return page.ljust(start, b"\0") + b"".join(cells)


def _large_value() -> bytes:
    return _made(_PLAIN[0], "INSERT INTO properties VALUES ('a', printf('%.*c', 40000000, 'x'))")


def _header(at: int, value: bytes) -> bytes:
    content = bytearray(_made(*_PLAIN))
    content[at : at + len(value)] = value
    return bytes(content)


_COUNT: Final = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"

HOSTILE: Final = [
    _hostile("rows-without-end", "computes 'properties' instead of holding it",
             f"CREATE VIEW properties (key, value) AS {_COUNT} SELECT 'a' || x, 'b' FROM c"),  # noqa: S608
    _hostile("no-row-and-no-end", "computes 'properties'",
             f"CREATE VIEW properties (key, value) AS {_COUNT} SELECT 'a', 'b' FROM c WHERE x < 0"),  # noqa: S608
    _hostile("value-of-a-gigabyte", "computes 'properties'",
             "CREATE VIEW properties (key, value) AS SELECT 'a', CAST(zeroblob(900000000) AS TEXT)"),
    _hostile("computed-value-of-a-gigabyte", "computes 'properties'",
             "CREATE TABLE properties (key TEXT, value TEXT AS (CAST(zeroblob(900000000) AS TEXT)))",
             "INSERT INTO properties VALUES ('a')"),
    _hostile("view-beside-the-table", "computes 'other'", *_PLAIN, "CREATE VIEW other AS SELECT 1"),
    _hostile("virtual-table", "computes 'properties", "CREATE VIRTUAL TABLE properties USING fts5(key, value)"),
    Hostile("pages-in-circles", pages_in_circles, "more rows than .* can hold: its pages lead in circles"),
    Hostile("value-of-40-megabytes", _large_value, "no sound SQLite file of its kind: .*too big"),
    Hostile("cut-in-the-middle", lambda: _made(*_PLAIN)[:5000], "no sound SQLite file|which is no text"),
    Hostile("cut-in-its-header", lambda: _made(*_PLAIN)[:50], "no sound SQLite file|WAL|not a database"),
    Hostile("empty", lambda: b"", "is no SQLite file"),
    Hostile("another-format", lambda: b"<html>" * 1000, "is no SQLite file"),
    Hostile("wal", lambda: _header(18, b"\2\2"), "is in WAL mode"),
    Hostile("page-size-of-zero", lambda: _header(16, b"\0\0"), "no sound SQLite file"),
    Hostile("utf-16", lambda: _made("PRAGMA encoding = 'UTF-16le'", *_PLAIN), "has the encoding UTF-16le"),
    Hostile("schema-format", lambda: _header(44, b"\0\0\0\x09"), "no sound SQLite file"),
    _hostile("no-table", "no such table", "CREATE TABLE other (a)"),
    _hostile("no-column", "no such column", "CREATE TABLE properties (key)", "INSERT INTO properties VALUES (1)"),
    _hostile("number-for-text", "which is no text", "CREATE TABLE properties (key, value)",
             "INSERT INTO properties VALUES ('a', 5)"),
    _hostile("nothing-for-text", "which is no text", _PLAIN[0], "INSERT INTO properties VALUES (NULL, NULL)"),
]  # fmt: skip
"""Files of every kind, each with what its reader is told."""
