"""How the polls of every wish went."""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import cast, delete, literal_column, select

from services.common.database.columns import SECONDS, kept
from services.common.database.expressions import ANY, given, insert, listed, mapped, part
from services.converter.state.database import StateDatabase
from services.converter.state.model import Polled, WishRecord
from services.converter.state.tables import wishes

__all__ = ["WishRecords"]

_c: Final = wishes.c
_EVERY: Final = select(_c.key, _c.fingerprint, _c.due, _c.failures, _c.reason, _c.polled_at)
_polls: Final = mapped("polls")
_add: Final = insert(wishes).from_select(
    ["key", "fingerprint", "due", "polled_at", "reason", "failures"],
    select(
        _polls.c.key,
        part(_polls.c.value, 0),
        cast(part(_polls.c.value, 1), SECONDS),
        cast(part(_polls.c.value, 2), SECONDS),
        part(_polls.c.value, 3),
        literal_column("0"),
    ).where(ANY),
)
_POLLED: Final = _add.on_conflict_do_update(
    index_elements=[_c.key],
    set_={name: _add.excluded[name] for name in ("fingerprint", "due", "polled_at", "reason", "failures")},
)
_FAILED: Final = (
    insert(wishes)
    .values(key=given("key"), fingerprint="", due=given("due"), failures=1, reason=given("reason"))
    .on_conflict_do_update(
        index_elements=[_c.key], set_={"due": given("due"), "failures": _c.failures + 1, "reason": given("reason")}
    )
)
_KEEP: Final = delete(wishes).where(_c.key.not_in(listed("keys")))


class WishRecords:
    """The table of wishes. Every method raises `StateError`.

    Parameters
    ----------
    database
        Where it is.
    """

    def __init__(self, *, database: StateDatabase) -> None:
        self._database = database

    async def every(self) -> dict[str, WishRecord]:
        """Return all, by the keys of the wishes."""
        rows = await self._database.run(_EVERY)
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
        texts = {
            key: poll if poll.reason is None else poll._replace(reason=kept(poll.reason)) for key, poll in polls.items()
        }
        await self._database.run(_POLLED, polls=json.dumps(texts))

    async def failed(self, key: str, *, reason: str, due: float) -> None:
        """Record that a poll failed, and when the next one is."""
        await self._database.run(_FAILED, key=key, due=due, reason=reason)

    async def keep(self, keys: Iterable[str]) -> None:
        """Forget all wishes but these."""
        await self._database.run(_KEEP, keys=json.dumps(list(keys)))
