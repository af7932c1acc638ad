"""A clock that goes on from process to process, and that nobody can set."""

from pathlib import Path

import pytest

from harness.postgresql import PostgresqlServer
from services.converter.state.postgresql import PostgresqlState
from services.converter.state.sqlite import SqliteState
from services.converter.state.state import State
from tests.support.converter import Clocks
from tests.support.state_databases import OpenState

_SLACK = 60.0
"""Seconds that a slow machine may take for a test."""


async def test_time_goes_on_from_process_to_process_whatever_the_time_of_day_says(new_state: OpenState) -> None:
    clocks = Clocks()
    async with State(new_state(), machine=clocks) as state:
        await state.begin()
        assert state.clock.steady() == pytest.approx(0, abs=_SLACK)
        clocks.pass_by(1000)
        await state.clock.save()
    clocks.up += 5000
    clocks.wall -= 1e9
    async with State(new_state(), machine=clocks) as state:
        assert state.clock.steady() == pytest.approx(6000, abs=_SLACK)


@pytest.mark.parametrize(("set_by", "counted"), [(600.0, 600.0), (1e9, 3600.0), (-1e9, 0.0)])
async def test_from_machine_to_machine_the_clock_of_the_database_counts_an_hour_at_most(
    postgresql: PostgresqlServer, empty_state: str, set_by: float, counted: float
) -> None:
    async with State(PostgresqlState(empty_state, password=postgresql.password), machine=Clocks()) as state:
        await state.begin()
    # As if the clock of the server had been set.
    later = f"UPDATE clock SET wall = wall - {set_by}"  # noqa: S608 - a number of the test's
    await postgresql.execute(later, database=empty_state.rpartition("/")[2])
    clocks = Clocks()
    clocks.booted, clocks.up, clocks.wall = "another machine", 3.0, 5e9
    async with State(PostgresqlState(empty_state, password=postgresql.password), machine=clocks) as state:
        assert state.clock.steady() == pytest.approx(counted, abs=_SLACK)


@pytest.mark.parametrize(("by_day", "counted"), [(600.0, 600.0), (1e9, 3600.0), (-1e9, 0.0)])
async def test_over_a_reboot_an_hour_is_believed_at_most(tmp_path: Path, by_day: float, counted: float) -> None:
    clocks = Clocks()
    async with State(SqliteState(tmp_path / "state"), machine=clocks) as state:
        await state.begin()
        clocks.pass_by(10_000)
        await state.clock.save()
    clocks.booted, clocks.up = "another boot", 3.0
    clocks.wall += by_day
    async with State(SqliteState(tmp_path / "state"), machine=clocks) as state:
        assert state.clock.steady() == pytest.approx(10_000 + counted, abs=_SLACK)
