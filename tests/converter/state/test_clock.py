"""A clock that goes on from process to process, and that nobody can set."""

from pathlib import Path

import pytest

from services.converter.state.state import State
from tests.support.converter import Clocks

_SLACK = 60.0
"""Seconds that a slow machine may take for a test."""


async def test_time_goes_on_from_process_to_process_whatever_the_time_of_day_says(tmp_path: Path) -> None:
    clocks = Clocks()
    async with State(tmp_path / "state", machine=clocks) as state:
        assert state.clock.steady() == pytest.approx(0, abs=_SLACK)
        clocks.pass_by(1000)
        await state.clock.save()
    clocks.up += 5000
    clocks.wall -= 1e9
    async with State(tmp_path / "state", machine=clocks) as state:
        assert state.clock.steady() == pytest.approx(6000, abs=_SLACK)


@pytest.mark.parametrize(("by_day", "counted"), [(600.0, 600.0), (1e9, 3600.0), (-1e9, 0.0)])
async def test_over_a_reboot_an_hour_is_believed_at_most(tmp_path: Path, by_day: float, counted: float) -> None:
    clocks = Clocks()
    async with State(tmp_path / "state", machine=clocks) as state:
        clocks.pass_by(10_000)
        await state.clock.save()
    clocks.booted, clocks.up = "another boot", 3.0
    clocks.wall += by_day
    async with State(tmp_path / "state", machine=clocks) as state:
        assert state.clock.steady() == pytest.approx(10_000 + counted, abs=_SLACK)
