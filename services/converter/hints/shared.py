"""The journal of hints in a PostgreSQL database: any of several converters records them, the one that works reads them.

What is said of `HintJournal` holds here as well. Deliveries are recorded one after the other, so that hints get their
numbers in the order in which they can be read. They are taken out by the session that has the turn: a converter that
has lost its turn takes none out that another one has not looked into.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import SecretStr
from sqlalchemy import Boolean, delete, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import insert

from services.common.database.connecting import connection_parameters, shown_url
from services.common.database.errors import first_line
from services.common.database.expressions import given, limit
from services.common.database.interface import Row, Statement
from services.common.database.postgresql import PostgresqlStatements
from services.converter.hints.errors import HintJournalError, JournalFullError
from services.converter.hints.model import Event, Recorded
from services.converter.hints.tables import deliveries, pending
from services.converter.model import Hint
from services.converter.state.database import StateDatabase

__all__ = ["SharedHintJournal"]

_TURN: Final = f"SELECT pg_advisory_xact_lock({0x7468696E68696E74})"
"""Recorders take turns by agreement: "thinhint", in ASCII."""
_REMEMBERED: Final = 100_000
"""Deliveries that are told when they come again; whoever repeats one does so soon."""
_PAGE: Final = 100
"""Hints that are read at once."""
_LOOK: Final = 1.0
"""Seconds between two looks at what other converters have recorded."""
_CONNECTIONS: Final = 2
_PATIENCE: Final = 10.0
"""Seconds for which recording waits for a connection."""

_COUNT: Final = select(func.count().label("number")).select_from(pending)
_REMEMBER: Final = (
    insert(deliveries)
    .values(endpoint=given("endpoint"), identity=given("identity"))
    .on_conflict_do_nothing()
    .returning(deliveries.c.number)
)
_FORGET: Final = delete(deliveries).where(deliveries.c.number <= given("last") - _REMEMBERED)
_RECORD: Final = (
    insert(pending)
    .values(registry=given("registry"), repository=given("repository"), tag=given("tag"))
    .on_conflict_do_update(
        index_elements=[pending.c.registry, pending.c.repository, pending.c.tag], set_={"sequence": text("DEFAULT")}
    )
    # A row that was there is another version of itself, which has taken the former one's place (xmax).
    .returning(literal_column("xmax = 0", Boolean()).label("is_new"))
)
_READ: Final = (
    select(pending.c.sequence, pending.c.registry, pending.c.repository, pending.c.tag)
    .where(pending.c.sequence > given("after"))
    .order_by(pending.c.sequence)
    .limit(limit())
)
_DONE: Final = delete(pending).where(pending.c.sequence == given("sequence"))


class SharedHintJournal:
    """The hints. Used as `async with`, from one event loop, while the state is open.

    Parameters
    ----------
    url, password
        As of `PostgresqlState`.
    state
        What has the turn, or waits for it.
    limit
        Most hints that may wait.
    """

    def __init__(self, url: str, *, password: SecretStr | None, state: StateDatabase, limit: int) -> None:
        self._name = f"the journal of hints {shown_url(url)}"
        self._state = state
        self._limit = limit
        self._statements = PostgresqlStatements()
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            connection_class=AsyncConnection[DictRow],
            kwargs={
                **connection_parameters(url, password, program="converter"),
                "autocommit": True,
                "row_factory": dict_row,
            },
            min_size=1,
            max_size=_CONNECTIONS,
            timeout=_PATIENCE,
            open=False,
        )
        self._waiting = 0
        self._page: deque[tuple[int, Hint]] = deque()
        self._cursor = 0
        self._refill = asyncio.Lock()
        self._fresh = asyncio.Event()
        self._given: dict[Hint, deque[int]] = defaultdict(deque)

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._pool.open()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._pool.close()

    @property
    def pending(self) -> int:
        """How many hints waited when this converter looked last, those given out among them."""
        return self._waiting

    async def record(self, endpoint: str, events: Sequence[Event]) -> Recorded:
        """Record events: all of them are on the disk when this returns, or none is recorded.

        Parameters
        ----------
        endpoint
            Name of the endpoint that they came by.
        events
            The events; one whose identity the endpoint has delivered before changes nothing.

        Raises
        ------
        JournalFullError
            There would be too many hints.
        HintJournalError
            The database cannot be written.
        """
        try:
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_TURN)
                recorded = await self._record(connection, endpoint, events)
        except psycopg.Error as error:
            await self._pool.check()
            raise HintJournalError(f"{self._name} failed: {first_line(error)}") from error
        if recorded.taken:
            self._fresh.set()
        return recorded

    async def next(self) -> Hint:
        """Give out the hint that has waited longest; wait until there is one.

        Raises
        ------
        StateError
            The database cannot be read, or another converter has its turn.
        """
        async with self._refill:
            while not self._page:
                self._fresh.clear()
                await self._read()
                if not self._page:
                    await self._pause()
            sequence, hint = self._page.popleft()
            self._given[hint].append(sequence)
            return hint

    async def done(self, hint: Hint) -> None:
        """Say that what follows from a hint that was given out has been done.

        Raises
        ------
        StateError
            It cannot be taken out: it is given out again.
        """
        given_out = self._given[hint]
        sequence = given_out.popleft()
        if not given_out:
            del self._given[hint]
        # One that has come again since has another number.
        await self._state.run(_DONE, sequence=sequence)

    async def _record(self, connection: AsyncConnection[DictRow], endpoint: str, events: Sequence[Event]) -> Recorded:
        async def run(statement: Statement, **parameters: object) -> list[Row]:
            return await self._statements.run(connection, statement, parameters)

        (count,) = await run(_COUNT)
        waiting: int = count["number"]
        taken = repeated = 0
        for event in events:
            if event.identity is not None:
                numbers = await run(_REMEMBER, endpoint=endpoint, identity=event.identity)
                if not numbers:
                    repeated += 1
                    continue
                await run(_FORGET, last=numbers[0]["number"])
            taken += 1
            hint: dict[str, Any] = {
                "registry": event.hint.registry,
                "repository": event.hint.repository,
                "tag": event.hint.tag or "",
            }
            (row,) = await run(_RECORD, **hint)
            waiting += row["is_new"]
            if waiting > self._limit:
                raise JournalFullError(f"{waiting - 1} hints wait, as many as there may be: send this again later")
        return Recorded(taken, repeated)

    async def _read(self) -> None:
        rows = await self._state.run(_READ, after=self._cursor, limit=_PAGE)
        for row in rows:
            hint = Hint(registry=row["registry"], repository=row["repository"], tag=row["tag"] or None)
            self._page.append((row["sequence"], hint))
            self._cursor = row["sequence"]
        (count,) = await self._state.run(_COUNT)
        self._waiting = count["number"]

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_LOOK):
                await self._fresh.wait()
        except TimeoutError:
            return
