"""The state in a file: opening it may be cancelled."""

from pathlib import Path

import pytest

from services.converter.state.sqlite import SqliteState
from tests.support.sqlite_files import cancel_opening, open_below


@pytest.mark.parametrize("step", ["connect", "PRAGMA user_version", "CREATE TABLE images"])
async def test_an_opening_that_is_cancelled_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await cancel_opening(SqliteState(tmp_path / "state.sqlite").__aenter__, at=step, monkeypatch=monkeypatch)
    assert open_below(tmp_path) == []
