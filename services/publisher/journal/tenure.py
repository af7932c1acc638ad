"""Which of several publishers with a journal in PostgreSQL leads: one at a time, and the others wait for their turn.

The one that leads has the turn by a connection of its own (`common/database/turn`). A publisher that has lost it ends,
since another one may lead.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection
from pydantic import SecretStr

from services.common.database.errors import first_line
from services.common.database.turn import LOOK, Turn
from services.publisher.errors import JournalError
from services.publisher.journal.postgresql import connection_parameters, shown_name

__all__ = ["Tenure"]

_log = structlog.get_logger(__name__)

_Answer = TypeVar("_Answer")
_Connection = AsyncConnection[tuple[Any, ...]]

_LOCK: Final = 0x7468696E7075626C
"""What publishers agree on: "thinpubl", in ASCII."""


class Tenure:
    """The turn of one publisher.

    Parameters
    ----------
    url, password
        As of `PostgresqlDatabase`.
    silence
        After which the server ends a connection that is not used, since its publisher hangs.
    """

    def __init__(self, url: str, *, password: SecretStr | None, silence: timedelta) -> None:
        self._name = shown_name(url)
        self._parameters: dict[str, Any] = connection_parameters(url, password)
        self._turn = Turn(_LOCK, silence=silence)

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
        while not await self._asked(self._turn.take(connection)):
            if not waits:
                waits = True
                _log.info("another publisher leads: standing by", journal=self._name)
            await asyncio.sleep(LOOK)
        _log.info("this publisher leads from now on", journal=self._name, waited=waits)

    async def _keep(self, connection: _Connection) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self._asked(self._turn.confirm(connection))

    async def _asked(self, question: Awaitable[_Answer]) -> _Answer:
        try:
            return await question
        except (psycopg.Error, TimeoutError) as error:
            raise JournalError(
                f"{self._name}: the connection that keeps other publishers from leading is lost: {first_line(error)}; "
                "start this publisher again, it waits for its turn then"
            ) from error
