"""Converters that share a database: one works, another one waits, and whoever has lost its turn changes nothing."""

import asyncio

import pytest
from sqlalchemy import func, literal_column, select

from harness.postgresql import PostgresqlServer
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.converter.errors import StateError
from services.converter.model import DAY, Retention
from services.converter.state.model import Want
from services.converter.state.postgresql import PostgresqlState
from services.converter.state.state import State
from tests.support.converter import REPOSITORY

_NEVER = asyncio.Event()
_LOST = r"the session that keeps other converters out is lost: .*; start this converter again"
_NAME, _DIGEST = ImageName("registry.example.org/physics/tool:1"), Digest("a" * 64)
_WANT = Want(
    repository=REPOSITORY,
    wish="wish",
    source="list.yaml",
    retention=Retention(replaced=DAY, dropped=DAY, gone=DAY),
)


async def test_a_converter_waits_until_the_other_one_ends_or_it_is_told_to_stop(
    postgresql: PostgresqlServer, empty_state: str
) -> None:
    stopped = asyncio.Event()
    async with (
        PostgresqlState(empty_state, password=postgresql.password) as first,
        PostgresqlState(empty_state, password=postgresql.password) as second,
        asyncio.TaskGroup() as group,
    ):
        assert await first.begin(_NEVER)
        assert not await second.try_to_begin()
        waiting = group.create_task(second.begin(stopped))
        await asyncio.sleep(0)
        stopped.set()
        assert not await waiting
    async with PostgresqlState(empty_state, password=postgresql.password) as third:
        assert await third.begin(_NEVER)
        await third.confirm()


async def test_what_a_hanging_converter_had_begun_is_undone_and_it_changes_nothing_any_more(
    postgresql: PostgresqlServer, empty_state: str
) -> None:
    hangs, other = (PostgresqlState(empty_state, password=postgresql.password) for _ in range(2))
    async with State(hangs) as stale, State(other) as state:
        assert await hangs.begin(_NEVER)
        await stale.begin()
        bounds = "idle_session_timeout", "idle_in_transaction_session_timeout"
        (limits,) = await hangs.run(select(*(func.current_setting(name).label(name) for name in bounds)))
        assert [limits[name] for name in bounds] == ["15s", "15s"]
        await hangs.run(select(*(func.set_config(name, "500ms", literal_column("false")) for name in bounds)))
        with pytest.raises(StateError, match=_LOST):
            async with hangs.transaction():
                await other.begin(_NEVER)
        assert await other.begin(_NEVER)
        await state.begin()
        await state.images.found(_NAME, _DIGEST, [_WANT])
        for change in (stale.copies.removed(_NAME, REPOSITORY), stale.clock.save(), hangs.confirm(), hangs.hold()):
            with pytest.raises(StateError, match=_LOST):
                await change
        assert await state.copies.count() == 1
