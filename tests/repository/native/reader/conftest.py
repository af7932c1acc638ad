from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.source import Source
from services.repository.native.storage.directory import DirectoryStorage
from tests.support.golden import GOLDEN, GOLDEN_KEY, GOLDEN_NAME, Open


@pytest.fixture
def open_golden() -> Iterator[Open]:
    """Open a reader of the golden repository, or of a copy, which is closed after the test."""
    with ExitStack() as stack:

        def open_(source: Source | Path = GOLDEN) -> RepositoryReader:
            storage = DirectoryStorage(source) if isinstance(source, Path) else source
            return stack.enter_context(RepositoryReader(storage, name=GOLDEN_NAME, master_keys=[GOLDEN_KEY]))

        yield open_
