"""Which of several publishers works with a journal in PostgreSQL: one at a time, and the others wait for their turn.

The one that works holds an advisory lock of the database's on a connection of its own. The server gives it up when that
connection ends: at once where the publisher has died, after some silence where its machine has, or where it hangs and
does not use the connection any more. A publisher that has lost it ends, since another one may be at work.
"""

import asyncio
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import psycopg
import structlog
from psycopg import AsyncConnection
from pydantic import SecretStr

from services.publisher.errors import JournalError
from services.publisher.journal.postgresql import connection_parameters, first_line, shown_name

__all__ = ["Tenure"]

_log = structlog.get_logger(__name__)

_LOCK: Final = 0x7468696E7075626C
"""What publishers agree on: "thinpubl", in ASCII."""
_LOOK: Final = 1.0
"""Seconds between two looks at whether the lock is free, and between two uses of the connection that holds it."""
_ANSWER: Final = 10.0
"""Seconds in which the server must answer."""
_SILENCE: Final = timedelta(seconds=15)
_GONE: Final = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}
"""When the server ends the connection of a machine that has gone, in seconds."""


class Tenure:
    """The turn of one publisher, on a connection that is open as long as the context is.

    Parameters
    ----------
    url, password
        As of `PostgresqlDatabase`. The lock is the session's: a proxy that gives one connection to several of its
        users must not be in between.
    silence
        After which the server ends a connection that is not used, since its publisher hangs.
    """

    def __init__(self, url: str, *, password: SecretStr | None, silence: timedelta = _SILENCE) -> None:
        self._name = shown_name(url)
        self._parameters: dict[str, Any] = connection_parameters(url, password)
        self._limits = {"idle_session_timeout": f"{silence / timedelta(milliseconds=1):.0f}ms", **_GONE}
        self._connection: AsyncConnection[tuple[Any, ...]]

    async def __aenter__(self) -> Self:
        """Connect.

        Raises
        ------
        JournalError
            The database cannot be reached.
        """
        try:
            self._connection = await AsyncConnection.connect(**self._parameters, autocommit=True)
        except psycopg.Error as error:
            raise JournalError(f"{self._name} cannot be opened: {first_line(error)}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let another publisher have its turn."""
        await self._connection.close()

    async def begin(self, stopped: asyncio.Event) -> bool:
        """Wait for this publisher's turn; tell whether it has come, and nobody wants it to stop before.

        Raises
        ------
        JournalError
            The database cannot be asked any more.
        """
        waits = False
        for name, value in self._limits.items():
            await self._ask("SELECT set_config(%s, %s, false)", name, value)
        while not stopped.is_set():
            if await self._ask("SELECT pg_try_advisory_lock(%s)", _LOCK):
                _log.info("this publisher works with the journal from now on", journal=self._name, waited=waits)
                return True
            if not waits:
                waits = True
                _log.info("another publisher works with the journal, waiting for its end", journal=self._name)
            await _pause(stopped)
        return False

    async def run(self) -> None:
        """Use the connection until cancelled.

        Raises
        ------
        JournalError
            It is lost: another publisher may have its turn now.
        """
        while True:
            await asyncio.sleep(_LOOK)
            await self._ask("SELECT 1")

    async def _ask(self, statement: str, *values: object) -> object:
        try:
            async with asyncio.timeout(_ANSWER):
                cursor = await self._connection.execute(statement.encode(), values)
                row = await cursor.fetchone()
        except (psycopg.Error, TimeoutError) as error:
            reason = first_line(error) or f"no answer within {_ANSWER:.0f} s"
            raise JournalError(
                f"{self._name}: the connection that keeps other publishers out is lost: {reason}; "
                "start this publisher again, it waits for its turn then"
            ) from error
        return None if row is None else row[0]


async def _pause(stopped: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK):
            await stopped.wait()
    except TimeoutError:
        return
