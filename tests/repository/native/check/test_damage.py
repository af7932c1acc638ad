"""Damage that nobody thought of: no changed byte goes unnoticed, and no catalog makes a check fail."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.repository.native.check.checker import Checker, Report
from services.repository.native.errors import StorageError
from services.repository.native.reader.source import Source
from services.repository.native.storage.directory import DirectoryStorage
from tests.support.forgery import Forgery, forged_key
from tests.support.golden import GOLDEN, GOLDEN_KEY, GOLDEN_NAME


class _Changed:
    """The golden repository with some bytes changed; remembers what is read."""

    def __init__(self, changes: dict[str, bytes] | None = None) -> None:
        self._storage = DirectoryStorage(GOLDEN)
        self._changes = changes or {}
        self.read: set[str] = set()

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        self.read.add(path)
        if (content := self._changes.get(path)) is None:
            with self._storage.open(path) as file:
                yield file
            return
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            yield file

    def size(self, path: str) -> int | None:
        return self._storage.size(path)


def _check(source: Source, key: bytes = GOLDEN_KEY) -> Report:
    return Checker(source, name=GOLDEN_NAME, master_keys=[key]).run()


@pytest.fixture(scope="module")
def files() -> list[str]:
    """All files that a check reads, of the newest revision and of the tags, and that hold a byte to be changed."""
    source = _Changed()
    assert _check(source).problems == ()
    assert len(source.read) == 110
    return sorted(path for path in source.read if (GOLDEN / path).stat().st_size)


@settings(max_examples=40)
@given(st.data())
def test_no_changed_byte_goes_unnoticed(files: list[str], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files))
    content = bytearray((GOLDEN / path).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    assert _check(_Changed({path: bytes(content)})).problems


@settings(max_examples=25)
@given(
    catalog=st.sampled_from(["", "/nested1", "/ingested"]),
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
)
def test_a_check_survives_every_catalog(
    tmp_path_factory: pytest.TempPathFactory, catalog: str, changes: list[tuple[int, bytes]]
) -> None:
    """Whoever holds the key may sign anything."""

    def change(database: bytes) -> bytes:
        changed = bytearray(database)
        for position, content in changes:
            at = position % len(changed)
            changed[at : at + len(content)] = content
        return bytes(changed[: len(database)])

    root = tmp_path_factory.mktemp("forged") / "repository"
    forgery = Forgery(root)
    forgery.rewrite(catalog, change)
    forgery.seal()
    try:
        report = _check(DirectoryStorage(root), forged_key())
        assert report.revision == 7
    finally:
        shutil.rmtree(root)


class _Failing(_Changed):
    """Fails for good after some files."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self._good = good

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        self._good -= 1
        if self._good < 0:
            raise StorageError("the disk is gone")
        with super().open(path) as file:
            yield file


@pytest.mark.parametrize("good", [0, 1, 2, 3, 4, 5, 10, 20, 50, 100])
def test_a_storage_that_fails_meanwhile_ends_the_check(good: int) -> None:
    with pytest.raises(StorageError, match="the disk is gone"):
        _check(_Failing(good))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("check")]
