"""The state in a PostgreSQL database, which several converters may share: one works, the others stand by.

All statements of a converter go through one session of the database's, and the one that works holds an advisory lock of
that session. So nothing can be changed by a converter that has lost its turn: it has lost the session, and with it
everything that it had not committed. The server ends the session at once where the converter has died, after some
silence where its machine has gone, or where it hangs and does not use the session any more. A converter that has lost
it ends, since another one may be at work; whoever started it starts it again, and it stands by then.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.exc import DBAPIError

from services.common.database.connecting import connection_parameters, first_line, shown_url
from services.common.database.interface import Row, Run, Statement, Statements
from services.common.threads import to_end
from services.converter.errors import StateError
from services.converter.state.database import kept
from services.converter.state.version import VERSION

__all__ = ["PostgresqlState"]

_log = structlog.get_logger(__name__)

_TURN: Final = 0x7468696E636F6E76
"""What converters agree on, for the turn: "thinconv", in ASCII."""
_TABLES: Final = 0x7468696E636F6E74
"""What they agree on while one of them makes the tables: "thincont"."""
_VERSION: Final = "SELECT version_num FROM alembic_version"
_LOOK: Final = 1.0
"""Seconds between two looks at whether the lock is free, and between two uses of the session that holds it."""
_ANSWER: Final = 10.0
"""Seconds in which the server must answer that the turn is held."""
_LIMITS: Final = {
    # When the server ends the session of a converter that hangs.
    "idle_session_timeout": "15s",
    "idle_in_transaction_session_timeout": "15s",
    # When it ends that of a machine that has gone, in seconds.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
    # What a loss of the server's power takes back is found out again.
    "synchronous_commit": "off",
}
"""How a session is from when it waits for its turn."""


class PostgresqlState:
    """The session; a `StateDatabase`.

    Parameters
    ----------
    url
        As libpq takes it, `postgresql://USER@HOST[:PORT]/DATABASE[?...]`, without a password. The lock is the
        session's: a proxy that gives one session to several of its users must not be in between.
    password
        None where the server wants none, or a file of libpq's has it.
    """

    def __init__(self, url: str, *, password: SecretStr | None) -> None:
        self._name = f"the state {shown_url(url)}"
        self._parameters: dict[str, Any] = connection_parameters(url, password, program="converter")
        self._stack = AsyncExitStack()
        self._one = asyncio.Lock()
        self._connection: AsyncConnection[DictRow]
        self._statements = Statements(dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy's own

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
            # What SQLAlchemy adds to the driver's own words is a statement.
            said = error.orig if isinstance(error, DBAPIError) else error
            raise StateError(f"{self._name} cannot be opened: {first_line(said)}") from error
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
        cursor = await self._connection.execute("SELECT to_regclass('alembic_version') AS found")
        if await cursor.fetchone() != {"found": None}:
            cursor = await self._connection.execute(_VERSION)
            if await cursor.fetchone() == {"version_num": str(VERSION)}:
                return
        await to_end(asyncio.to_thread(self._migrate))

    def _migrate(self) -> None:
        from services.converter.state.schema import migrate  # noqa: PLC0415 - Alembic, which few starts need

        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(**self._parameters), poolclass=NullPool
        )
        with engine.begin() as connection:
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
            # Not before: until then, a session may be silent.
            for name, value in _LIMITS.items():
                await self._connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        return await self._ask(f"SELECT pg_try_advisory_lock({_TURN}) AS answer")

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
        await self._ask("SELECT true AS answer")

    async def hold(self) -> None:
        """Use the session until cancelled; raises as `confirm`."""
        while True:
            await asyncio.sleep(_LOOK)
            await self.confirm()

    async def _ask(self, statement: str) -> bool:
        async with self._one, self._failing(), asyncio.timeout(_ANSWER):
            cursor = await self._connection.execute(statement.encode())
            row = await cursor.fetchone()
        return row is not None and bool(row["answer"])

    async def _run(self, statement: Statement, /, **parameters: object) -> list[Row]:
        text, values = self._statements.write(statement, parameters)
        cursor = await self._connection.execute(text.encode(), {name: _plain(value) for name, value in values.items()})
        return [] if cursor.description is None else [*await cursor.fetchall()]

    @asynccontextmanager
    async def _failing(self) -> AsyncIterator[None]:
        try:
            yield
        except (psycopg.Error, TimeoutError) as error:
            reason = first_line(error) or f"no answer within {_ANSWER:.0f} s"
            if isinstance(error, TimeoutError) or self._connection.closed:
                raise StateError(
                    f"{self._name}: the session that keeps other converters out is lost: {reason}; start this "
                    "converter again, it waits for its turn then"
                ) from error
            raise StateError(f"{self._name} failed: {reason}") from error


def _plain(value: object) -> object:
    """Return a value as the driver takes it, which knows no kinds of texts but one."""
    return kept(str(value)) if isinstance(value, str) else value


async def _pause(stopped: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK):
            await stopped.wait()
    except TimeoutError:
        return
