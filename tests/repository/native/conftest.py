"""What the tests of native repositories share."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.repository.native.trust.keyring import KeyFiles
from tests.support.mounts import mount, unmount_all_below
from tests.support.native import NATIVE_NAME, NativeSite

NAME = NATIVE_NAME


@pytest.fixture(scope="session")
def made_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of which tests take copies: making them takes a while."""
    directory = tmp_path_factory.mktemp("native-keys")
    KeyFiles(directory, NAME).complete(now=datetime(2026, 11, 24, tzinfo=UTC))
    return directory


@pytest.fixture
def keys(made_keys: Path, tmp_path: Path) -> KeyFiles:
    """Key files of the test's own."""
    directory = tmp_path / "keys"
    shutil.copytree(made_keys, directory)
    return KeyFiles(directory, NAME)


@pytest.fixture
def site(keys: KeyFiles, tmp_path: Path) -> NativeSite:
    """An empty repository of the test's own."""
    site = NativeSite(root=tmp_path / "repository", state=tmp_path / "state", keys=keys)
    site.create()
    return site


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory, for tests of kills: what one leaves is the same on a disk, which would be waited for."""
    above = tmp_path_factory.mktemp("memory")
    directory = above / "disk"
    directory.mkdir()
    mount("-t", "tmpfs", "tmpfs", directory)
    try:
        yield directory
    finally:
        unmount_all_below(above)


@contextmanager
def place_in(memory: Path) -> Iterator[Path]:
    """Have a directory there for a while."""
    place = Path(tempfile.mkdtemp(dir=memory))
    try:
        yield place
    finally:
        shutil.rmtree(place)
