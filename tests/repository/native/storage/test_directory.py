from pathlib import Path

import pytest

from services.repository.native.records import REFLOG
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import NewObject

_PATH = "data/ab/cdef"


@pytest.fixture
def storage(tmp_path: Path) -> DirectoryStorage:
    storage = DirectoryStorage(tmp_path)
    storage.prepare()
    return storage


def test_an_object_that_a_power_failure_cut_is_put_anew(storage: DirectoryStorage, tmp_path: Path) -> None:
    (tmp_path / _PATH).write_bytes(b"")
    storage.put([NewObject(_PATH, b"content")])
    assert storage.read(_PATH) == b"content"


@pytest.mark.parametrize("there", [b"con", b"damaged"], ids=["cut", "of-the-same-size"])
def test_a_file_is_put_over_what_is_damaged(storage: DirectoryStorage, tmp_path: Path, there: bytes) -> None:
    (tmp_path / _PATH).write_bytes(there)
    (tmp_path / "source").write_bytes(b"content")
    storage.put_file(_PATH, tmp_path / "source")
    assert storage.read(_PATH) == b"content"


def test_an_object_that_is_there_is_left_alone(storage: DirectoryStorage, tmp_path: Path) -> None:
    storage.put([NewObject(_PATH, b"content")])
    before = (tmp_path / _PATH).stat().st_ino
    storage.put([NewObject(_PATH, b"content")])
    assert (tmp_path / _PATH).stat().st_ino == before


def test_a_file_that_is_replaced_has_another_version(storage: DirectoryStorage) -> None:
    assert storage.version(REFLOG) is None
    versions = []
    for content in (b"one", b"two", b"two"):
        storage.replace(REFLOG, content)
        versions.append(storage.version(REFLOG))
        assert storage.version(REFLOG) == versions[-1]
    assert None not in versions
    assert len(set(versions)) == len(versions)
