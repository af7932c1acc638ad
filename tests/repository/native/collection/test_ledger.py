"""The ledger's file."""

import sqlite3
from pathlib import Path

import pytest

from services.repository.native.collection.ledger import Ledger
from tests.support.sqlite_files import open_below


def test_a_ledger_that_cannot_be_used_is_not_left_open(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("no database" * 100)
    with pytest.raises(sqlite3.DatabaseError), Ledger(tmp_path):
        pass
    assert open_below(tmp_path) == []
