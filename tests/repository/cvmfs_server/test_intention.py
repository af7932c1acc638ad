"""Whose an unclaimed transaction is, by what was about to be opened."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.repository.cvmfs_server import intention
from services.repository.cvmfs_server.claim import claimant
from services.repository.cvmfs_server.identity import process_identity
from services.repository.cvmfs_server.intention import Intention, IntentionFile
from services.repository.cvmfs_server.ownership import Ownership
from services.repository.cvmfs_server.place import Place
from tests.support.publisher import REPOSITORY

_SECOND = 1_000_000_000


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    # Others keep the machine so busy that a beat may be late by seconds.
    monkeypatch.setattr(intention, "_SLACK", 60 * _SECOND)
    place = Place(name=REPOSITORY, mount=tmp_path / "mount", spool=tmp_path / "spool", configuration=tmp_path)
    place.scratch.mkdir(parents=True)
    return place


def _opener(place: Place, *program: str, publisher: int | None = None) -> "subprocess.CompletedProcess[str]":
    """Run an opener, which has ended then, whatever its program has come to."""
    arguments = [str(publisher or os.getpid()), str(place.flag), str(place.area / "marker"), "token"]
    return subprocess.run(
        [sys.executable, "-m", "services.repository.cvmfs_server.opener", *arguments, *program],
        check=False,
        capture_output=True,
        text=True,
    )


def _killed_opener(place: Place, program: str = "") -> None:
    """Run an opener whose program kills it, as if everything had been killed."""
    _opener(place, "sh", "-c", f"{program or f'touch {place.flag}'}; kill -9 $PPID")


def _own(place: Place, token: str = "token") -> bool:  # noqa: S107
    ownership = Ownership(place)
    ownership.add(token)
    return ownership.is_open()


def test_what_was_opened_by_who_was_killed_is_ones_own_and_claimed(place: Place) -> None:
    _killed_opener(place)
    assert claimant(place.flag) is None
    assert _own(place)
    assert claimant(place.flag) == "token"
    # So that the next transaction, should it come as soon, is not taken for this one.
    place.flag.unlink()
    place.flag.touch()
    assert not _own(place)


def test_nothing_is_open_where_the_opener_was_killed_before(place: Place) -> None:
    _killed_opener(place, "true")
    assert not _own(place)


def _older(place: Place) -> None:
    born = place.flag.stat().st_mtime_ns - 300 * _SECOND
    os.utime(place.flag, ns=(born, born))


def _after_the_kill(place: Place) -> None:
    born = time.time_ns() + 300 * _SECOND
    os.utime(place.flag, ns=(born, born))


def _written(place: Place) -> None:
    (place.scratch / "file").touch()


def _aborted(place: Place) -> None:
    place.flag.unlink()


@pytest.mark.parametrize("change", [_older, _after_the_kill, _written, _aborted])
def test_a_transaction_that_somebody_else_may_have_opened_is_not_ones_own(
    place: Place, change: Callable[[Place], None]
) -> None:
    _killed_opener(place)
    change(place)
    assert not _own(place)
    assert claimant(place.flag) is None


def test_the_intention_of_another_publisher_is_not_ones_own(place: Place) -> None:
    _killed_opener(place)
    assert not _own(place, "another")


def test_an_opener_that_lives_claims_the_transaction_itself(place: Place) -> None:
    IntentionFile(place.flag).record("token")
    place.flag.touch()
    assert not _own(place)
    ownership = Ownership(place)
    assert ownership.living_opener() is None
    ownership.add("token")
    assert ownership.living_opener() == process_identity(os.getpid())


def test_a_process_of_the_same_number_after_a_restart_is_not_the_opener(place: Place) -> None:
    now = time.time_ns()
    opener = process_identity(os.getpid())
    assert opener is not None
    former = Intention(token="token", boot="another", opener=opener, begun=now - _SECOND, beat=now)
    place.flag.touch()
    assert former.made(place.flag, place.scratch)


def test_an_opener_whose_program_finds_a_transaction_open_withdraws(place: Place) -> None:
    assert _opener(place, "sh", "-c", f"touch {place.flag}; exit {errno.EEXIST}").returncode == errno.EEXIST
    assert not _own(place)


def test_an_opener_whose_program_fails_withdraws(place: Place) -> None:
    # A transaction that is open then may have been what made it fail.
    assert _opener(place, "sh", "-c", f"touch {place.flag}; exit 1").returncode == 1
    assert not _own(place)


def test_what_a_program_that_was_killed_has_opened_is_ones_own(place: Place) -> None:
    assert _opener(place, "sh", "-c", f"touch {place.flag}; kill -9 $$").returncode == 137
    assert _own(place)


def test_an_opener_beats_as_long_as_its_program_runs(place: Place) -> None:
    _killed_opener(place, f"sleep 2; touch {place.flag}")
    assert _own(place)


def test_nothing_is_opened_for_a_publisher_that_has_ended(place: Place) -> None:
    done = _opener(place, "touch", str(place.flag), publisher=1 << 22)
    assert (done.returncode, done.stderr) == (1, "the publisher has ended before a transaction was opened\n")
    assert not place.flag.exists()
    assert IntentionFile(place.flag).read() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"token": "token"}'])
def test_an_intention_that_cannot_be_read_is_none(place: Place, text: str) -> None:
    _killed_opener(place)
    place.flag.with_name("publisher-intention").write_text(text)
    assert not _own(place)
