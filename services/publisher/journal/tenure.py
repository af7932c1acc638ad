"""Which of several publishers with a journal in PostgreSQL leads: one at a time, and the others wait for their turn.

The one that leads holds an advisory lock of the database's on a connection of its own. The server gives it up when that
connection ends: at once where the publisher has died, after some silence where its machine has, or where it hangs and
does not use the connection any more. A publisher that has lost it ends, since another one may lead.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection
from pydantic import SecretStr

from services.publisher.errors import JournalError
from services.publisher.journal.postgresql import connection_parameters, first_line, shown_name

__all__ = ["Tenure"]

_log = structlog.get_logger(__name__)

_Connection = AsyncConnection[tuple[Any, ...]]

_LOCK: Final = 0x7468696E7075626C
"""What publishers agree on: "thinpubl", in ASCII."""
_LOOK: Final = 1.0
"""Seconds between two looks at whether the lock is free, and between two uses of the connection that holds it."""
_ANSWER: Final = 2 / 3
"""Part of the silence in which the server must answer: a publisher that has lost its turn learns it before another has
it."""
_GONE: Final = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}
"""When the server ends the connection of a machine that has gone, in seconds."""


class Tenure:
    """The turn of one publisher.

    Parameters
    ----------
    url, password
        As of `PostgresqlDatabase`. The lock is the session's: a proxy that gives one connection to several of its
        users must not be in between.
    silence
        After which the server ends a connection that is not used, since its publisher hangs.
    """

    def __init__(self, url: str, *, password: SecretStr | None, silence: timedelta) -> None:
        self._name = shown_name(url)
        self._parameters: dict[str, Any] = connection_parameters(url, password)
        self._answer = _ANSWER * silence.total_seconds()
        self._limits = {"idle_session_timeout": f"{silence / timedelta(milliseconds=1):.0f}ms", **_GONE}

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait for this publisher's turn; at the end of the context another one may have it.

        Raises
        ------
        JournalError
            The database cannot be reached, or the connection to it is lost, which cancels what is in the context:
            another publisher may have its turn now.
        """
        async with await self._connect() as connection:
            await self._wait(connection)
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self._keep(connection))
                try:
                    yield
                finally:
                    keeping.cancel()

    async def _connect(self) -> _Connection:
        try:
            connection = await AsyncConnection.connect(**self._parameters, autocommit=True)
        except psycopg.Error as error:
            raise JournalError(f"{self._name} cannot be opened: {first_line(error)}") from error
        return connection

    async def _wait(self, connection: _Connection) -> None:
        waits = False
        for name, value in self._limits.items():
            await self._ask(connection, "SELECT set_config(%s, %s, false)", name, value)
        while not await self._ask(connection, "SELECT pg_try_advisory_lock(%s)", _LOCK):
            if not waits:
                waits = True
                _log.info("another publisher leads: standing by", journal=self._name)
            await asyncio.sleep(_LOOK)
        _log.info("this publisher leads from now on", journal=self._name, waited=waits)

    async def _keep(self, connection: _Connection) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            await self._ask(connection, "SELECT 1")

    async def _ask(self, connection: _Connection, statement: str, *values: object) -> object:
        try:
            async with asyncio.timeout(self._answer):
                cursor = await connection.execute(statement.encode(), values)
                row = await cursor.fetchone()
        except (psycopg.Error, TimeoutError) as error:
            reason = first_line(error) or f"no answer within {self._answer:.0f} s"
            raise JournalError(
                f"{self._name}: the connection that keeps other publishers from leading is lost: {reason}; "
                "start this publisher again, it waits for its turn then"
            ) from error
        return None if row is None else row[0]
