"""Whatever several publishers do, a layer is in one publisher's hands at a time, and only that one's words count."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from services.common.database.expressions import given as parameter
from services.common.database.interface import Database
from services.publisher.errors import LeaseLostError
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState, Selection
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.journal.tables import layers, publishers
from tests.support.journal import numbered
from tests.support.journal_databases import Open

_PUBLISHERS = 3
_LAYERS = 3
_EMPTY = (delete(layers), delete(publishers))
_BACK = update(publishers).values(lease_until=0).where(publishers.c.id == parameter("gone"))
_WHAT = ("verified", "published", "failed", "failed together", "refused", "given back", "advanced")
_STEPS = ("announce", "restart", "claim", "claim", "claim", "renew", "expire", "take over", "leave", *_WHAT)
_Step = tuple[str, int, int]

_steps = st.lists(
    st.tuples(
        st.sampled_from(_STEPS),
        st.integers(0, _PUBLISHERS - 1),
        st.integers(0, _LAYERS - 1),
    ),
    min_size=10,
    max_size=40,
)
_OUTCOMES = {
    "verified": LayerState.VERIFIED,
    "published": LayerState.PUBLISHED,
    "failed": LayerState.FAILED,
    "failed together": LayerState.FAILED,
    "refused": LayerState.FAILED,
    "given back": LayerState.ANNOUNCED,
    "advanced": LayerState.PUBLISHING,
}
_KEPT = ("verified", "advanced")
"""What leaves a layer with its publisher."""


@dataclass
class _Model:
    """What the journal must say."""

    states: dict[int, LayerState] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    expired: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)

    def waiting(self) -> set[int]:
        return {
            layer
            for layer, state in self.states.items()
            if state is LayerState.ANNOUNCED or (state is LayerState.FAILED and layer not in self.refused)
        }

    def announce(self, layer: int) -> None:
        self.states[layer] = LayerState.ANNOUNCED
        self.refused.discard(layer)

    def free(self, publisher: int) -> None:
        for layer in [layer for layer, owner in self.owners.items() if owner == publisher]:
            del self.owners[layer]
            self.states[layer] = LayerState.ANNOUNCED

    def take_over(self, publisher: int) -> None:
        self.gone |= self.expired - {publisher}
        for other in self.gone - {publisher}:
            self.free(other)

    def say(self, what: str, publisher: int, layer: int) -> None:
        if self.owners.get(layer) == publisher:
            self.states[layer] = _OUTCOMES[what]
            if what not in _KEPT:
                del self.owners[layer]
            if what == "refused":
                self.refused.add(layer)


@dataclass(frozen=True)
class _Site:
    journals: tuple[Journal, ...]
    database: Database

    async def begin(self) -> None:
        """Forget what an earlier example has done."""
        for statement in _EMPTY:
            await self.database.run(statement)
        for journal in self.journals:
            await journal.publishers.enter(name="one of several", lease=1000)

    async def do(self, step: _Step, model: _Model) -> None:
        what, number, layer = step
        journal = self.journals[number]
        if what in ("announce", "restart"):
            await self._ask(what, journal, layer, model)
        elif what == "claim":
            record = await journal.claim()
            assert (record is None) == (not model.waiting())
            if record is not None:
                claimed = int(record.digest, 16)
                assert claimed in model.waiting()
                model.states[claimed], model.owners[claimed] = LayerState.FETCHING, number
        elif what == "renew":
            await self._renew(number, model)
        elif what == "expire":
            await self.database.run(_BACK, gone=journal.publisher)
            model.expired.add(number)
        elif what == "take over":
            await journal.publishers.take_over()
            model.take_over(number)
        elif what == "leave":
            await journal.publishers.leave()
            model.free(number)
            model.gone.add(number)
        else:
            await self._say(what, journal, layer)
            model.say(what, number, layer)

    async def _ask(self, what: str, journal: Journal, layer: int, model: _Model) -> None:
        if what == "announce":
            await journal.announce([numbered(layer)])
            changed = model.states.get(layer) in (None, LayerState.FAILED)
        else:
            await journal.restart(numbered(layer))
            changed = model.states.get(layer) in (LayerState.PUBLISHED, LayerState.FAILED)
        if changed:
            model.announce(layer)

    async def _renew(self, number: int, model: _Model) -> None:
        publisher = self.journals[number].publishers
        if number in model.gone:
            with pytest.raises(LeaseLostError):
                await publisher.renew(lease=1000)
        else:
            await publisher.renew(lease=1000)
            model.expired.discard(number)

    async def _say(self, what: str, journal: Journal, layer: int) -> None:
        digest = numbered(layer)
        match what:
            case "verified":
                await journal.verified(digest, archive_size=1)
            case "published":
                await journal.published([digest], 1)
            case "failed":
                await journal.failed(digest, "down", due=0)
            case "failed together":
                await journal.failed_together([digest], "down", due=0, share=1)
            case "refused":
                await journal.refused(digest, "forged")
            case "given back":
                await journal.give_back([digest])
            case _:
                await journal.advance([digest], LayerState.PUBLISHING)

    async def compare(self, model: _Model) -> None:
        records = await self.journals[0].page(Selection(), after="", limit=_LAYERS)
        assert {int(record.digest, 16): record.state for record in records} == model.states
        owners = {int(record.digest, 16): record.claimed_by for record in records if record.claimed_by is not None}
        assert owners == {layer: self.journals[owner].publisher for layer, owner in model.owners.items()}


@pytest.fixture
async def site(new_journal: Open, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[_Site]:
    # So that the same statements are tried in a file as well, which only one publisher has.
    monkeypatch.setattr(SqliteDatabase, "shared", True)
    async with AsyncExitStack() as stack:
        journals = [await stack.enter_async_context(Journal(new_journal(), alone=False)) for _ in range(_PUBLISHERS)]
        yield _Site(tuple(journals), await stack.enter_async_context(new_journal()))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
async def test_claims_are_those_of_a_model(site: _Site, steps: list[_Step]) -> None:
    await site.begin()
    model = _Model()
    for step in steps:
        await site.do(step, model)
        await site.compare(model)
