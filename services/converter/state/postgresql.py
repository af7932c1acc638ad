"""The state in a PostgreSQL database, which several converters may share: one works, the others stand by.

All statements of a converter go through one session of the database's, and the one that works has the turn by that
session (`common/database/turn`). So nothing can be changed by a converter that has lost its turn: it has lost the
session, and with it everything that it had not committed. A converter that has lost it ends, since another one may be
at work; whoever started it starts it again, and it stands by then.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from services.common.database.connecting import connection_parameters, shown_url
from services.common.database.errors import first_line
from services.common.database.interface import Row, Run, Statement
from services.common.database.postgresql import PostgresqlStatements, blocking_engine, has_version, set_parameters
from services.common.database.turn import LOOK, Turn
from services.common.threads import to_end
from services.converter.errors import StateError
from services.converter.state.version import VERSION

__all__ = ["PostgresqlState"]

_log = structlog.get_logger(__name__)

_TURN: Final = 0x7468696E636F6E76
"""What converters agree on, for the turn: "thinconv", in ASCII."""
_TABLES: Final = 0x7468696E636F6E74
"""What they agree on while one of them makes the tables: "thincont"."""
_SILENCE: Final = timedelta(seconds=15)
"""After which the server ends the session of a converter that hangs."""


class PostgresqlState:
    """The session; a `StateDatabase`.

    Parameters
    ----------
    url
        As libpq takes it, `postgresql://USER@HOST[:PORT]/DATABASE[?...]`, without a password.
    password
        None where the server wants none, or a file of libpq's has it.
    """

    def __init__(self, url: str, *, password: SecretStr | None) -> None:
        self._name = f"the state {shown_url(url)}"
        self._parameters: dict[str, Any] = connection_parameters(url, password, program="converter")
        self._stack = AsyncExitStack()
        self._one = asyncio.Lock()
        self._connection: AsyncConnection[DictRow]
        self._statements = PostgresqlStatements()
        self._turn = Turn(_TURN, silence=_SILENCE)

    async def __aenter__(self) -> Self:
        """Connect, and make its tables those of this version.

        Raises
        ------
        StateError
            It cannot be reached or used, or a newer converter has written it.
        """
        try:
            self._connection = await AsyncConnection.connect(**self._parameters, autocommit=True, row_factory=dict_row)
            self._stack.push_async_callback(self._connection.close)
            await self._prepare()
        except (psycopg.Error, DBAPIError) as error:
            await self._stack.aclose()
            raise StateError(f"{self._name} cannot be opened: {first_line(error)}") from error
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let another converter have its turn."""
        await self._stack.aclose()

    async def _prepare(self) -> None:
        if not await has_version(self._connection, VERSION):
            await to_end(asyncio.to_thread(self._migrate))
        # What a loss of the server's power takes back is found out again.
        await set_parameters(self._connection, {"synchronous_commit": "off"})

    def _migrate(self) -> None:
        from services.converter.state.schema import migrate  # noqa: PLC0415 - Alembic, which few starts need

        with blocking_engine(self._parameters).begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TABLES})")
            migrate(connection, state=self._name)

    async def run(self, statement: Statement, /, **parameters: object) -> list[Row]:
        """Run a statement; raises `StateError`, also where the session is lost."""
        async with self._one, self._failing():
            return await self._run(statement, **parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Run]:
        """Run several statements as one change: all or none; raises `StateError`."""
        async with self._one, self._failing(), self._connection.transaction():
            yield self._run

    async def try_to_begin(self) -> bool:
        """Take the turn if no other converter has it; tell whether this one has it now.

        Raises
        ------
        StateError
            The database cannot be asked any more.
        """
        async with self._one, self._failing():
            return await self._turn.take(self._connection)

    async def begin(self, stopped: asyncio.Event) -> bool:
        """Wait for this converter's turn; tell whether it has come, and nobody wants it to stop before.

        Raises
        ------
        StateError
            The database cannot be asked any more.
        """
        waits = False
        while not stopped.is_set():
            if await self.try_to_begin():
                _log.info("this converter works from now on", state=self._name, waited=waits)
                return True
            if not waits:
                waits = True
                _log.info("another converter works, standing by", state=self._name)
            await _pause(stopped)
        return False

    async def confirm(self) -> None:
        """Return if this converter still has the turn: its session, which holds the lock, is there.

        Raises
        ------
        StateError
            It is lost: another converter may have its turn now.
        """
        async with self._one, self._failing():
            await self._turn.confirm(self._connection)

    async def hold(self) -> None:
        """Use the session until cancelled; raises as `confirm`."""
        while True:
            await asyncio.sleep(LOOK)
            await self.confirm()

    async def _run(self, statement: Statement, /, **parameters: object) -> list[Row]:
        return await self._statements.run(self._connection, statement, parameters)

    @asynccontextmanager
    async def _failing(self) -> AsyncIterator[None]:
        try:
            yield
        except (psycopg.Error, TimeoutError) as error:
            reason = first_line(error)
            if isinstance(error, TimeoutError) or self._connection.closed:
                raise StateError(
                    f"{self._name}: the session that keeps other converters out is lost: {reason}; start this "
                    "converter again, it waits for its turn then"
                ) from error
            raise StateError(f"{self._name} failed: {reason}") from error


async def _pause(stopped: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK):
            await stopped.wait()
    except TimeoutError:
        return
