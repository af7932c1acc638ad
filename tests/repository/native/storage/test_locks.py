"""Locks between processes."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from services.repository.native.errors import RepositoryBusyError, StorageError
from services.repository.native.storage.locks import RepositoryLocks

HOLDER = """
import sys
from pathlib import Path
from services.repository.native.storage.locks import RepositoryLocks
with {lock}:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locks(tmp_path: Path) -> RepositoryLocks:
    return RepositoryLocks(tmp_path, place="the repository")


@contextmanager
def held_elsewhere(directory: Path, call: str) -> Iterator[subprocess.Popen[str]]:
    lock = f"RepositoryLocks(Path({str(directory)!r}), place='x').{call}"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(lock=lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()
        process.wait()


def test_one_process_writes_at_a_time(locks: RepositoryLocks, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "exclusive()") as other:
        with pytest.raises(RepositoryBusyError, match="another process writes to the repository"), locks.exclusive():
            pass
        with locks.using(patience=0):
            pass
        other.kill()  # which is enough to let the lock go
        other.wait()
        with locks.exclusive():
            pass


def test_many_use_objects_at_a_time_and_a_collector_waits_for_all(locks: RepositoryLocks, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "using(patience=5)") as other, ExitStack() as users:
        users.enter_context(locks.using(patience=0))
        users.enter_context(locks.using(patience=0))
        with pytest.raises(RepositoryBusyError, match="all the time"), locks.collecting(patience=0):
            pass
        users.close()
        with pytest.raises(RepositoryBusyError), locks.collecting(patience=0):
            pass
        other.kill()
        other.wait()
        with locks.collecting(patience=0):
            pass


def test_nobody_uses_objects_while_some_are_collected(locks: RepositoryLocks, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "collecting(patience=5)"):
        late = pytest.raises(RepositoryBusyError, match=r"being collected; it did not end within 0\.1 s")
        with late, locks.using(patience=0.1):
            pass
        with pytest.raises(RepositoryBusyError), locks.collecting(patience=0):
            pass
    with locks.using(patience=0):
        pass


def test_a_collector_gets_its_turn_however_busy_it_is(locks: RepositoryLocks) -> None:
    """Users come without a pause; those who come while one waits to collect are not let in before it."""
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            with locks.using(patience=300):
                stop.wait(0.01)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            with locks.collecting(patience=300):
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_write_lock_is_taken_while_objects_are_used_or_collected(locks: RepositoryLocks) -> None:
    with locks.using(patience=0), locks.exclusive():
        pass
    with locks.collecting(patience=0), locks.exclusive():
        pass


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    locks = RepositoryLocks(tmp_path / "nowhere", place="the repository")
    with pytest.raises(StorageError, match="the repository cannot be locked"), locks.exclusive():
        pass
