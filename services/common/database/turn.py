"""Whose turn it is among programs that share a database in PostgreSQL: one at a time, and the others wait.

The one that has it holds an advisory lock by a session. The server gives the lock up when the session ends: at once
where the program has died, after some silence where its machine has gone, or where it hangs and does not use the
session any more. A proxy that gives one session to several of its users must not be in between.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from services.common.database.postgresql import set_parameters

__all__ = ["LOOK", "Turn"]

LOOK: Final = 1.0
"""Seconds between two looks at whether the turn has come, and between two uses of the session that has it."""
_ANSWER: Final = 2 / 3
"""Part of the silence in which the server must answer: who has lost the turn learns it before another one has it."""
_GONE: Final = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}
"""When the server ends the session of a machine that has gone, in seconds."""


class Turn:
    """The turn. Methods raise `psycopg.Error` or `TimeoutError`, which say that it is lost or cannot be asked for.

    Parameters
    ----------
    lock
        What the programs agree on: the number of an advisory lock.
    silence
        After which the server ends a session that is not used, since its program hangs.
    """

    def __init__(self, lock: int, *, silence: timedelta) -> None:
        self._lock = lock
        self._answer = _ANSWER * silence.total_seconds()
        end = f"{silence / timedelta(milliseconds=1):.0f}ms"
        self._limits = {"idle_session_timeout": end, "idle_in_transaction_session_timeout": end, **_GONE}

    async def take(self, connection: AsyncConnection[Any]) -> bool:
        """Take the turn if no other session has it; tell whether this one has: it may not be silent from now on."""
        async with self._in_time():
            await set_parameters(connection, self._limits)
            return bool(await _ask(connection, "SELECT pg_try_advisory_lock(%s)", self._lock))

    async def confirm(self, connection: AsyncConnection[Any]) -> None:
        """Return if the session, which holds the lock, is there."""
        async with self._in_time():
            await _ask(connection, "SELECT 1")

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._answer):
                yield
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._answer:.0f} s") from None


async def _ask(connection: AsyncConnection[Any], question: str, *values: object) -> object:
    cursor = connection.cursor(row_factory=tuple_row)
    await cursor.execute(question.encode(), values)
    row = await cursor.fetchone()
    return None if row is None else row[0]
