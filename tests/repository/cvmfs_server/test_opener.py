"""The process that opens a transaction and claims it."""

import errno
import os
import sys
from pathlib import Path

import pytest

from services.repository.cvmfs_server import opener
from services.repository.cvmfs_server.claim import claimant
from tests.support.mounts import small_disk


def _open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    flag, marker = tmp_path / "in_transaction.lock", tmp_path / "area" / ".layers" / "marker"
    monkeypatch.setattr(sys, "argv", ["opener", str(os.getppid()), str(flag), str(marker), "token", "touch", str(flag)])
    return opener.main()


def test_a_file_system_without_attributes_keeps_nobody_from_publishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tmpfs was until Linux 6.6, which transactions may lie on."""

    def fail(*_arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("os.setxattr", fail)
    assert _open(tmp_path, monkeypatch) == 0
    assert (tmp_path / "area/.layers/marker").read_text() == "token"
    assert claimant(tmp_path / "in_transaction.lock") == "token"


def test_an_area_that_cannot_be_written_is_a_failure_and_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "area").write_text("in the way")
    assert _open(tmp_path, monkeypatch) == 1
    assert capfd.readouterr().err.endswith(f"or {tmp_path}/area/.layers: Not a directory\n")
    assert claimant(tmp_path / "in_transaction.lock") == "token"


def test_a_full_disk_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spool = tmp_path / "spool"
    with small_disk(spool, megabytes=1) as disk:
        disk.fill()
        assert _open(spool, monkeypatch) == 1
        (complaint,) = capfd.readouterr().err.splitlines()
        assert complaint.startswith(f"whose the transaction is cannot be written to {spool} or ")
        assert complaint.endswith(": No space left on device")
        assert claimant(spool / "in_transaction.lock") is None
        disk.free()
        assert _open(spool, monkeypatch) == 0
