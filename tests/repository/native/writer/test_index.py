import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import pytest

from services.repository.native.errors import StorageError
from services.repository.native.writer.index import ContentIndex
from services.repository.native.writer.new_rows import content_key

_PAGE: Final = 4096
_ROWS: Final = [(content_key(b"%d" % number), "", (number + 1).to_bytes(2, "big") * 10) for number in range(300)]
"""So many that they take several pages, and more than one statement to find."""


class Opened:
    """An index, and how often what it knew was lost."""

    def __init__(self, path: Path) -> None:
        self.losses = 0
        self.index = ContentIndex(path, lost=self._count)

    def _count(self) -> None:
        self.losses += 1

    def known(self) -> int:
        """Return how many rows are found, all of which are right."""
        found = self.index.find(key for key, _, _ in _ROWS)
        rows = {(key, kind): digest for key, kind, digest in _ROWS}
        assert all(rows[place] == digest for place, digest in found.items())
        return len(found)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An index of all rows, closed."""
    path = tmp_path / "index.sqlite"
    with closing(ContentIndex(path)) as index:
        index.add(_ROWS)
    return path


@pytest.fixture
def two(path: Path) -> Iterator[tuple[Opened, Opened]]:
    """The same index, opened twice as by two processes."""
    with ExitStack() as stack:
        both = Opened(path), Opened(path)
        for one in both:
            stack.callback(one.index.close)
        yield both


def _damage_pages(path: Path) -> None:
    """Overwrite all but the first page, which an opening looks at."""
    with path.open("r+b") as file:
        file.seek(_PAGE)
        file.write(os.urandom(path.stat().st_size - _PAGE))


def _change_digest(path: Path) -> None:
    """Change one bit of each digest, as a bad disk may; to SQLite the file is as good as before."""
    content = path.read_bytes()
    for _, _, digest in _ROWS:
        content = content.replace(digest, bytes([digest[0] ^ 1]) + digest[1:])
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_damage_pages, _change_digest])
def test_a_damaged_index_is_started_anew_and_says_nothing_wrong(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    opened = Opened(path)
    with closing(opened.index):
        assert opened.known() == 0
        assert opened.losses == 1
        opened.index.add(_ROWS)
        assert opened.known() == len(_ROWS)
    assert opened.losses == 1


def test_damage_that_a_change_meets_does_not_fail_it(path: Path) -> None:
    opened = Opened(path)
    with closing(opened.index):
        _damage_pages(path)
        opened.index.add(_ROWS)
        assert opened.losses == 1
        assert opened.known() == len(_ROWS)


def test_damage_keeps_nobody_from_deleting_objects(path: Path) -> None:
    opened = Opened(path)
    with closing(opened.index):
        _damage_pages(path)
        opened.index.forget([_ROWS[0][2]])
        assert opened.known() == 0
        assert opened.losses == 1


def test_what_is_forgotten_is_in_the_file_and_not_only_in_the_log(two: tuple[Opened, Opened], path: Path) -> None:
    """Who adds does not wait for the disk, and a power failure may take the log and what was copied from it."""
    one, other = two
    one.index.add(_ROWS)
    other.index.forget([_ROWS[0][2]])
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    opened = Opened(copy)
    with closing(opened.index):
        assert opened.known() == len(_ROWS) - 1
    assert one.known() == len(_ROWS) - 1


def test_another_process_goes_over_to_the_new_file(two: tuple[Opened, Opened], path: Path) -> None:
    one, other = two
    assert other.known() == len(_ROWS)
    _damage_pages(path)
    one.index.add(_ROWS[:10])
    other.index.refresh()
    assert (other.known(), other.losses) == (10, 1)
    other.index.add(_ROWS[10:20])
    assert (one.known(), one.losses) == (20, 1)


def test_a_process_that_ends_leaves_the_new_file_alone(path: Path) -> None:
    one, other = Opened(path), Opened(path)
    with closing(one.index):
        _damage_pages(path)
        one.index.add(_ROWS)
        other.index.close()
        with closing(Opened(path).index) as third:
            third.add([])
        assert one.known() == len(_ROWS)
    assert one.losses == 1


def test_an_index_that_is_deleted_leaves_nothing_behind(path: Path) -> None:
    opened = Opened(path)
    with closing(opened.index):
        opened.index.add(_ROWS)
        path.unlink()  # and not the log, which is there as long as the index is open
        opened.index.add(_ROWS[:10])
        assert opened.known() == 10
        assert opened.losses == 1


def test_what_is_no_damage_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.mkdir()
    with pytest.raises(StorageError, match=r"index\.sqlite cannot be opened: unable to open database file"):
        ContentIndex(path)


def test_an_index_of_an_older_publisher_is_filled_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE content (key BLOB, kind TEXT, object BLOB NOT NULL, PRIMARY KEY (key, kind))")
    opened = Opened(path)
    with closing(opened.index):
        opened.index.add(_ROWS)
        assert opened.known() == len(_ROWS)
