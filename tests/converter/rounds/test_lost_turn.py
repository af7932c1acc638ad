"""A converter that loses its turn in the middle of a step asks no publisher for anything any more."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from pydantic import JsonValue

from harness.postgresql import PostgresqlServer
from services.common.image_name import ImageName
from services.converter.errors import StateError
from services.converter.model import DAY, SignaturePolicy, Wish
from services.converter.state.postgresql import PostgresqlState
from services.registry.reference import ImageReference
from tests.support.converter import Rig, push_small, wish
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LOST = "the session that keeps other converters out is lost"


@dataclass
class _Server:
    """Ends the sessions of converters, as it does when they are silent or cannot be reached."""

    server: PostgresqlServer
    database: str

    async def end_sessions(self) -> None:
        """End them."""
        name = self.database.rpartition("/")[2]
        await self.server.execute(
            f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608
        )

    async def verify(
        self, name: ImageName, reference: ImageReference, wishes: Sequence[Wish], policies: Sequence[SignaturePolicy]
    ) -> dict[str, JsonValue] | None:
        """Take so long to verify something that the turn is lost meanwhile."""
        del name, reference, wishes, policies
        await self.end_sessions()
        return None


@pytest.fixture
def server(postgresql: PostgresqlServer, empty_state: str) -> _Server:
    return _Server(postgresql, empty_state)


@pytest.fixture
def shared(rig: Rig, postgresql: PostgresqlServer, empty_state: str) -> Rig:
    rig.database = lambda: PostgresqlState(empty_state, password=postgresql.password)
    return rig


async def test_no_image_is_asked_for_on_old_knowledge(shared: Rig, server: _Server, registry: RegistryServer) -> None:
    await push_small(registry.address, "lost/asked:v1", b"content")
    shared.lists.wish(wish(f"{registry.address}/lost/asked", "v1"))
    shared.verifier = server  # type: ignore[assignment]  # of the same form
    with pytest.raises(StateError, match=_LOST):
        async with shared.rounds() as rounds:
            await rounds.once()
    assert shared.publisher.asked() == []


async def test_no_image_is_removed_on_old_knowledge(
    shared: Rig, server: _Server, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push_small(registry.address, "lost/removed:v1", b"content")
    wanted = wish(f"{registry.address}/lost/removed", "v1")
    shared.lists.wish(wanted)
    async with shared.rounds() as rounds:
        assert (await rounds.once()).is_success
    shared.lists.wish()
    async with shared.rounds():
        pass
    shared.clocks.pass_by(8 * DAY)
    with pytest.raises(StateError, match=_LOST):  # noqa: PT012 - also where it is closed
        async with shared.rounds() as rounds:
            count = rounds.remover._state.copies.count  # noqa: SLF001 - the last that is asked before anything goes

            async def counted() -> int:
                found = await count()
                await server.end_sessions()
                return found

            monkeypatch.setattr(rounds.remover._state.copies, "count", counted)  # noqa: SLF001 - as above
            assert [each.name for each in await rounds.remover.due()] == [f"{registry.address}/lost/removed:v1"]
            await rounds.remover.run()
    assert shared.publisher.removed() == []
    shared.lists.wish(wanted)
    async with shared.rounds() as rounds:
        assert await rounds.remover.due() == []
