import hashlib
from pathlib import Path

import pytest

from services.common.hashed_file import HashedFile


def test_what_was_left_is_gone_on_with(tmp_path: Path) -> None:
    hidden, destination = tmp_path / ".hidden", tmp_path / "file"
    hidden.write_bytes(b"left")
    with hidden.open("r+b", buffering=0) as raw:
        file = HashedFile(raw, hidden)
        file.read()
        file.write((b" and", b" added"))
        file.publish(destination)
        assert (file.size, file.digest) == (14, hashlib.sha256(b"left and added").hexdigest())
    assert destination.read_bytes() == b"left and added"
    assert not hidden.exists()


def test_nothing_stays_of_what_is_started_over(tmp_path: Path) -> None:
    with (tmp_path / "file").open("x+b", buffering=0) as raw:
        file = HashedFile(raw, tmp_path / "file")
        file.write((b"wrong and long",))
        file.start_over()
        file.write((b"right",))
    assert (file.size, file.digest) == (5, hashlib.sha256(b"right").hexdigest())
    assert (tmp_path / "file").read_bytes() == b"right"


def test_an_error_names_the_file() -> None:
    full = Path("/dev/full")
    with full.open("wb", buffering=0) as raw, pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        HashedFile(raw, full).write((b"x",))
