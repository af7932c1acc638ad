"""How the polls of every wish went."""

import json
from collections.abc import Iterable, Mapping

from services.common.sqlite_file import SqliteFile
from services.converter.state.clock import SteadyClock
from services.converter.state.model import Polled, WishRecord

__all__ = ["WishRecords"]


class WishRecords:
    """The table of wishes. Every method raises `SqliteFileError`.

    Parameters
    ----------
    file
        Where it is.
    clock
        How late it is.
    """

    def __init__(self, *, file: SqliteFile, clock: SteadyClock) -> None:
        self._file = file
        self._clock = clock

    async def every(self) -> dict[str, WishRecord]:
        """Return all, by the keys of the wishes."""
        rows = await self._file.run("SELECT key, fingerprint, due, failures, reason, polled_at FROM wishes")
        return {
            row["key"]: WishRecord(
                fingerprint=row["fingerprint"],
                due=row["due"],
                failures=row["failures"],
                reason=row["reason"],
                polled_at=row["polled_at"],
            )
            for row in rows
        }

    async def polled(self, polls: Mapping[str, Polled]) -> None:
        """Record that wishes were polled from beginning to end, by their keys, and when they are polled again."""
        await self._file.run(
            """
            INSERT INTO wishes (key, fingerprint, due, polled_at, reason)
            SELECT key, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(:polls) WHERE true
            ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, due = excluded.due, failures = 0,
                reason = excluded.reason, polled_at = excluded.polled_at
            """,
            polls=json.dumps(polls),
        )

    async def failed(self, key: str, *, reason: str, due: float) -> None:
        """Record that a poll failed, and when the next one is."""
        await self._file.run(
            """
            INSERT INTO wishes (key, fingerprint, due, failures, reason) VALUES (:key, '', :due, 1, :reason)
            ON CONFLICT (key) DO UPDATE SET due = :due, failures = failures + 1, reason = :reason
            """,
            key=key,
            due=due,
            reason=reason,
        )

    async def keep(self, keys: Iterable[str]) -> None:
        """Forget all wishes but these."""
        await self._file.run(
            "DELETE FROM wishes WHERE key NOT IN (SELECT value FROM json_each(:keys))", keys=json.dumps(list(keys))
        )
