"""The rows of a catalog as pages of an SQLite database, written in the order in which they come.

Two thirds of the time in which SQLite makes a catalog goes into taking sixteen values for each row, and into indexes
that it keeps in order row by row. All rows of a new catalog are known: each tree can be written from its leaves up,
its pages full. The other tables are small and remain SQLite's.

The form is that of https://www.sqlite.org/fileformat2.html, sections 1.5 (pages and cells), 1.6 (payloads that do not
fit a page) and 2.1 (records). Nothing but the rows decides the bytes, not even the release of SQLite.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from services.repository.native.writer.catalog import PAGE_SIZE
from services.repository.native.writer.rows import Row

__all__ = ["RootPages", "add_rows"]

_TABLE_LEAF, _TABLE_INTERIOR, _INDEX_LEAF, _INDEX_INTERIOR = b"\x0d", b"\x05", b"\x0a", b"\x02"
_LEAF_HEADER: Final = struct.Struct(">cHHHB")
_LEAF_SPACE: Final = PAGE_SIZE - _LEAF_HEADER.size
_RIGHT: Final = struct.Struct(">I")
_INTERIOR_SPACE: Final = _LEAF_SPACE - _RIGHT.size
_POINTER: Final = 2
"""Bytes of a cell's place in its page."""
_MOST_LOCAL: Final = PAGE_SIZE - 35
"""The longest payload of a table's cell that is whole in its page."""
_LEAST_LOCAL: Final = (PAGE_SIZE - 12) * 32 // 255 - 23
_OVERFLOW: Final = PAGE_SIZE - 4

_PAGE_COUNT: Final = slice(28, 32)
"""Where the header of a database says how many pages it has."""

_KEY: Final = 16
"""Bytes of a path hash, which is two numbers."""
_HASHES: Final = 2 * _KEY
"""Bytes of a row's path hash, and of that of the directory above it."""
_BLOB, _TEXT = 12, 13
"""The types of an empty value; each byte adds two."""
_FOUR_INTEGERS: Final = b"\6\6\6\6"
"""The types of four numbers of eight bytes, which hashes are but for one in millions; any of them may be so long."""
_INDEX_TYPES: Final = {1: b"\4\6\6\1", 2: b"\4\6\6\2", 4: b"\4\6\6\4"}
"""Of an index record: two numbers of eight bytes, and the row's number in so many."""
_SIGNS: Final = b"\x80\0\0\0\0\0\0\0" * 2
"""What makes the bytes of two numbers sort as the numbers do."""


class RootPages(NamedTuple):
    """Numbers of the pages at which the trees of a catalog's entries begin."""

    table: int
    by_path: int
    """The index of the primary key."""
    by_parent: int


def add_rows(database: bytes, roots: RootPages, rows: Sequence[Row]) -> bytes:
    """Add the entries to a catalog that has none.

    Parameters
    ----------
    database
        The uncompressed catalog, whose pages have `PAGE_SIZE` bytes, none of them free.
    roots
        Where its trees begin.
    rows
        All entries, the root's first; their numbers are plain ones, and no flags.
    """
    pages = _Pages(database)
    hashes = array("q", [half for row in rows for half in row[:4]])
    if sys.byteorder == "little":
        hashes.byteswap()
    packed = hashes.tobytes()
    starts = range(0, len(packed), _HASHES)
    pages.write_table(roots.table, _table_cells(rows, [packed[at : at + _HASHES] for at in starts], pages))
    pages.write_index(roots.by_path, [packed[at : at + _KEY] for at in starts])
    pages.write_index(roots.by_parent, [packed[at + _KEY : at + _HASHES] for at in starts])
    return pages.joined()


class _Varints(dict[int, bytes]):
    """Numbers in the form of SQLite's that is the longer the larger they are."""

    def __missing__(self, number: int) -> bytes:
        made = bytes((number & 0x7F,))
        left = number >> 7
        while left:
            made = bytes((left & 0x7F | 0x80,)) + made
            left >>= 7
        self[number] = made
        return made


_VARINTS: Final = _Varints()


class _Integers(dict[int, tuple[bytes, bytes]]):
    """The type and the bytes of numbers, the shortest there is: most come often."""

    def __missing__(self, number: int) -> tuple[bytes, bytes]:
        if number in (0, 1):
            made = bytes((8 + number,)), b""
        else:
            size = ((number if number >= 0 else ~number).bit_length() + 8) // 8
            kind, size = {5: (5, 6), 7: (6, 8), 8: (6, 8)}.get(size, (min(size, 5), size))
            made = bytes((kind,)), number.to_bytes(size, signed=True)
        self[number] = made
        return made


class _Attributes(dict[tuple[int, int, int | None, int], tuple[bytes, bytes]]):
    """The same of those columns that many rows have alike: mode, times and flags."""

    def __init__(self, integers: _Integers) -> None:
        super().__init__()
        self._integers = integers

    def __missing__(self, columns: tuple[int, int, int | None, int]) -> tuple[bytes, bytes]:
        values = [(b"\0", b"") if column is None else self._integers[column] for column in columns]
        made = self[columns] = b"".join(kind for kind, _ in values), b"".join(value for _, value in values)
        return made


class _Owners(dict[tuple[int, int, bytes | None], tuple[bytes, bytes]]):
    """The same of owner, group and extended attributes."""

    def __init__(self, integers: _Integers) -> None:
        super().__init__()
        self._integers = integers

    def __missing__(self, columns: tuple[int, int, bytes | None]) -> tuple[bytes, bytes]:
        uid, gid, xattr = columns
        (uid_kind, uid_value), (gid_kind, gid_value) = self._integers[uid], self._integers[gid]
        kind = b"\0" if xattr is None else _VARINTS[_BLOB + 2 * len(xattr)]
        made = self[columns] = uid_kind + gid_kind + kind, uid_value + gid_value + (xattr or b"")
        return made


def _table_cells(rows: Sequence[Row], hashes: Sequence[bytes], pages: "_Pages") -> Iterator[bytes]:
    integers = _Integers()
    attributes, owners = _Attributes(integers), _Owners(integers)
    join = b"".join
    for number, (row, of_paths) in enumerate(zip(rows, hashes, strict=True), 1):
        _, _, _, _, links, digest, size, _, _, _, _, name, target, _, _, _ = row
        kind_1, value_1 = integers[links]
        kind_2, value_2 = integers[size]
        kind_3, value_3 = attributes[row[7:11]]
        kind_4, value_4 = owners[row[13:]]
        kinds = (
            _FOUR_INTEGERS,
            kind_1,
            b"\0" if digest is None else _VARINTS[_BLOB + 2 * len(digest)],
            kind_2,
            kind_3,
            _VARINTS[_TEXT + 2 * len(name)],
            _VARINTS[_TEXT + 2 * len(target)] if target else b"\x0d",
            kind_4,
        )
        header = join(kinds)
        payload = join(
            (
                *(_VARINTS[1 + len(header)], header, of_paths, value_1, digest or b"", value_2),
                *(value_3, name, target, value_4),
            )
        )
        if len(payload) <= _MOST_LOCAL:
            yield _VARINTS[len(payload)] + _VARINTS[number] + payload
        else:
            yield _VARINTS[len(payload)] + _VARINTS[number] + pages.overflow(payload)


def _index_cells(keys: Sequence[bytes]) -> list[bytes]:
    """Return the cells of an index, in order; all of them have the same size."""
    count = len(keys)
    size = 1 if count < 1 << 7 else 2 if count < 1 << 15 else 4
    head = bytes((len(_INDEX_TYPES[size]) + _KEY + size,)) + _INDEX_TYPES[size]
    signs = int.from_bytes(_SIGNS * count)
    sortable = (int.from_bytes(b"".join(keys)) ^ signs).to_bytes(_KEY * count)
    places = [sortable[at : at + _KEY] for at in range(0, _KEY * count, _KEY)]
    order = sorted(range(count), key=places.__getitem__)
    return [head + keys[place] + (place + 1).to_bytes(size) for place in order]


class _Pages:
    """The pages of a database: those that there are, and those that are added."""

    def __init__(self, database: bytes) -> None:
        self._there = bytearray(database)
        self._added: list[bytes] = []

    def joined(self) -> bytes:
        """Return the database."""
        count = len(self._there) // PAGE_SIZE + len(self._added)
        self._there[_PAGE_COUNT] = count.to_bytes(4)
        return b"".join((self._there, *self._added))

    def overflow(self, payload: bytes) -> bytes:
        """Put the end of a payload into pages of its own; return what is in the cell."""
        local = _LEAST_LOCAL + (len(payload) - _LEAST_LOCAL) % _OVERFLOW
        if local > _MOST_LOCAL:
            local = _LEAST_LOCAL
        after = 0
        for start in reversed(range(local, len(payload), _OVERFLOW)):
            after = self._add(_RIGHT.pack(after) + payload[start : start + _OVERFLOW].ljust(_OVERFLOW, b"\0"))
        return payload[:local] + _RIGHT.pack(after)

    def write_table(self, root: int, cells: Iterable[bytes]) -> None:
        """Write a table, whose rows have the numbers 1, 2, 3 and so on."""
        leaves: list[list[bytes]] = [[]]
        between: list[bytes] = []
        space = _LEAF_SPACE
        for before, cell in enumerate(cells):
            space -= len(cell) + _POINTER
            if space < 0:
                between.append(_VARINTS[before])  # the last row of the page before
                leaves.append([])
                space = _LEAF_SPACE - len(cell) - _POINTER
            leaves[-1].append(cell)
        self._write_interior(root, _TABLE_INTERIOR, [_page(_TABLE_LEAF, leaf) for leaf in leaves], between)

    def write_index(self, root: int, keys: Sequence[bytes]) -> None:
        """Write an index of rows with the numbers 1, 2, 3 and so on, given two numbers of eight bytes of each."""
        cells = _index_cells(keys)
        most = _LEAF_SPACE // (len(cells[0]) + _POINTER)
        leaves: list[Sequence[bytes]] = []
        between: list[bytes] = []
        start = 0
        while (left := len(cells) - start) > most:
            # The cell between two leaves is in neither; and the last leaf must have one.
            end = start + most - (left == most + 1)
            leaves.append(cells[start:end])
            between.append(cells[end])
            start = end + 1
        leaves.append(cells[start:])
        self._write_interior(root, _INDEX_INTERIOR, [_page(_INDEX_LEAF, leaf) for leaf in leaves], between)

    def _write_interior(self, root: int, kind: bytes, level: list[bytes], between: list[bytes]) -> None:
        """Write the pages of one level of a tree and those above them; the topmost is the root.

        Parameters
        ----------
        between
            What tells each page from the next one.
        """
        while len(level) > 1:
            level, between = _interior(kind, [self._add(page) for page in level], between)
        start = (root - 1) * PAGE_SIZE
        self._there[start : start + PAGE_SIZE] = level[0]

    def _add(self, page: bytes) -> int:
        self._added.append(page)
        return len(self._there) // PAGE_SIZE + len(self._added)


def _interior(kind: bytes, below: Sequence[int], between: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the pages that lead to those of the level below, and what tells each from the next one."""
    pages: list[tuple[list[bytes], int]] = []
    above: list[bytes] = []
    cells: list[bytes] = []
    space = _INTERIOR_SPACE
    for number, divider in zip(below, between, strict=False):
        space -= _RIGHT.size + len(divider) + _POINTER
        if space < 0:
            pages.append((cells, number))
            above.append(divider)
            cells, space = [], _INTERIOR_SPACE
        else:
            cells.append(_RIGHT.pack(number) + divider)
    if pages and not cells:
        # No page may lead to one page only.
        before, last = pages[-1]
        moved = before.pop()
        pages[-1] = (before, *_RIGHT.unpack(moved[: _RIGHT.size]))
        cells = [_RIGHT.pack(last) + above[-1]]
        above[-1] = moved[_RIGHT.size :]
    pages.append((cells, below[-1]))
    return [_page(kind, page, _RIGHT.pack(right)) for page, right in pages], above


def _page(kind: bytes, cells: Sequence[bytes], right: bytes = b"") -> bytes:
    places = [PAGE_SIZE - used for used in accumulate(map(len, cells))]
    start = places[-1] if places else PAGE_SIZE
    head = _LEAF_HEADER.pack(kind, 0, len(cells), start, 0) + right + struct.pack(f">{len(places)}H", *places)
    return b"".join((head, bytes(start - len(head)), *reversed(cells)))
