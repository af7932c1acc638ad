import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.lock_file import LockError, locked, locked_directory

_HOLD = """
import sys
from pathlib import Path
from services.common.lock_file import locked
with locked(Path(sys.argv[1]), otherwise="somebody is here"):
    print("held", flush=True)
    {then}
"""


def _holder(path: Path, then: str = "sys.stdin.read()") -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD.format(then=then), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_error_names_the_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with _holder(path) as process:
        with (
            pytest.raises(LockError) as raised,
            locked(path, otherwise="another publisher has it"),
        ):
            pass
        assert str(raised.value) == (
            f"another publisher has it: stop it first (process {process.pid} on {os.uname().nodename} holds {path})"
        )
        process.kill()
    with locked(path, otherwise="it was killed"):
        assert path.read_text() == f"{os.getpid()} {os.uname().nodename}\n"


def test_a_directory_is_held_without_a_file_in_it(tmp_path: Path) -> None:
    held = subprocess.Popen(
        [sys.executable, "-c", _HOLD.replace("locked", "locked_directory").format(then="sys.stdin.read()"), tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with held as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockError) as raised, locked_directory(tmp_path, otherwise="another publisher has it"):
            pass
        assert str(raised.value) == (
            f"another publisher has it: stop it first (process {process.pid} on {os.uname().nodename} holds {tmp_path})"
        )
        process.kill()
    assert os.listdir(tmp_path) == []
    with locked_directory(tmp_path, otherwise="it was killed"):
        pass


def test_programs_that_a_killed_process_has_started_do_not_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    then = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read()"
    with _holder(path, then) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            with locked(path, otherwise="the child has it"):
                pass
        finally:
            os.kill(child, 9)


def test_within_a_process_it_is_held_once_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        locked(path, otherwise="first"),
        pytest.raises(LockError, match="second: stop it first"),
        locked(path, otherwise="second"),
    ):
        pass
    with locked(path, otherwise="third"):
        pass


@pytest.mark.parametrize("content", [b"", b"1", b"\0" * 600, b"12 \xff\xff\n"])
def test_what_is_no_name_of_a_process_is_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lock"
    with locked(path, otherwise="first"):
        path.write_bytes(content)
        with pytest.raises(LockError) as raised, locked(path, otherwise="second"):
            pass
    assert str(raised.value) == f"second: stop it first (it holds {path})"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LockError, match="lock cannot be opened"), locked(tmp_path / "lock", otherwise="x"):
        pass
    assert not (tmp_path / "elsewhere").exists()
