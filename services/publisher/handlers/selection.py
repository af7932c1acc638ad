"""Which layers a query asks for, and where their list goes on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from multidict import MultiMapping

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord, LayerState, Moment, Selection

__all__ = ["TRUTH", "Listing", "Order", "read_listing"]

_PREFIX = re.compile(r"[0-9a-f]{0,64}")
_MOMENT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?),([0-9a-f]{64})")
_REASON_LENGTH: Final = 200
TRUTH: Final[Mapping[str, bool]] = {"true": True, "false": False}


class Order(StrEnum):
    """How layers are listed."""

    DIGEST = "digest"
    """By their digests: nothing is left out or shown twice, whatever changes meanwhile."""
    RECENT = "recent"
    """Those first that changed last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page of a list of layers."""

    selection: Selection
    order: Order
    after: Digest | Moment | None
    """The last layer of the page before."""
    limit: int

    async def read(self, journal: Journal) -> list[LayerRecord]:
        """Read the page from the journal."""
        if isinstance(self.after, Moment) or self.order is Order.RECENT:
            moment = self.after if isinstance(self.after, Moment) else None
            return await journal.recent(self.selection, before=moment, limit=self.limit)
        return await journal.page(self.selection, after=self.after or "", limit=self.limit)


def read_listing(query: MultiMapping[str], *, page: int, most: int) -> Listing:
    """Read what a query asks for.

    `state` (any number of times), `refused`, `digest` (its start) and `reason` (a part of it) select layers, `order`,
    `after` and `limit` a page of them.

    Parameters
    ----------
    query
        The query.
    page
        Length of a page where none is given.
    most
        Length of the longest page.

    Raises
    ------
    InvalidValueError
        A value is not of its form.
    """
    order, place = query.get("order", Order.DIGEST), query.get("after", "")
    if order not in list(Order):
        raise InvalidValueError(f"order is one of {', '.join(Order)}")
    try:
        limit = int(query.get("limit", page))
    except ValueError:
        raise InvalidValueError(f"limit is a number, not {query['limit'][:40]!r}") from None
    if not 1 <= limit <= most:
        raise InvalidValueError(f"limit is between 1 and {most}")
    after: Digest | Moment | None = None
    if place:
        after = Digest(place) if order == Order.DIGEST else _moment(place)
    return Listing(selection=_selection(query), order=Order(order), after=after, limit=limit)


def _selection(query: MultiMapping[str]) -> Selection:
    """Read which layers a query asks for.

    Raises
    ------
    InvalidValueError
        A value is not of its form.
    """
    states = [state for state in query.getall("state", []) if state]
    if not set(states) <= set(LayerState):
        raise InvalidValueError(f"state is one of {', '.join(LayerState)}")
    prefix, reason, refused = query.get("digest", ""), query.get("reason", ""), query.get("refused", "")
    if not _PREFIX.fullmatch(prefix):
        raise InvalidValueError("digest is the start of a digest: up to 64 lower-case hex digits")
    if len(reason) > _REASON_LENGTH:
        raise InvalidValueError(f"reason has at most {_REASON_LENGTH} characters")
    if refused and refused not in TRUTH:
        raise InvalidValueError("refused is true or false")
    return Selection(
        states=tuple(LayerState(state) for state in dict.fromkeys(states)),
        refused=TRUTH.get(refused),
        prefix=prefix,
        reason=reason,
    )


def _moment(text: str) -> Moment:
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise InvalidValueError("after is what the page before names as its next")
    return Moment(float(match[1]), match[2])
