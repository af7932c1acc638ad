"""Images that are chosen by when they were made, which a registry's configurations say, and clocks that jump."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from services.converter.model import DAY, ChosenTags
from tests.support.converter import Rig, push_small, wish
from tests.support.registries import RegistryServer
from tests.support.registry_faults import FaultyRegistry

pytestmark = pytest.mark.asyncio(loop_scope="session")

_YEARS = 3650 * DAY
_AGES = {"old": 40, "middle": 20, "new": 1}
"""Tags, and how many days ago their images were made."""


async def _push(registry: RegistryServer, rig: Rig, name: str, tag: str, *, days: float | None) -> None:
    """Push an image that was made so many days ago, or that does not tell."""
    created = None if days is None else datetime.fromtimestamp(rig.clocks.now() - days * DAY, UTC).isoformat()
    await push_small(registry.address, f"{name}:{tag}", tag.encode(), created=created)


async def _push_all(registry: RegistryServer, rig: Rig, name: str) -> None:
    for tag, days in _AGES.items():
        await _push(registry, rig, name, tag, days=days)
    await _push(registry, rig, name, "silent", days=None)


def _asked(rig: Rig) -> set[str]:
    """Return the tags that were asked for since this was called last."""
    tags = {body["name"].rpartition(":")[2] for body in rig.publisher.asked()}
    rig.publisher.requests = []
    return tags


async def test_the_newest_are_those_that_were_made_last(registry: RegistryServer, rig: Rig) -> None:
    await _push_all(registry, rig, "created/newest")
    async with FaultyRegistry.before(registry.address) as proxy, AsyncExitStack() as stack:
        name = f"{proxy.address}/created/newest"
        rig.lists.wish(wish(name, ChosenTags(newest=2, newest_by="created")))
        rounds = await stack.enter_async_context(rig.rounds(removal_share=1.0))
        assert (await rounds.once()).is_success
        assert _asked(rig) == {"new", "middle"}
        assert len(proxy.seen("GET .*/blobs/")) == len(_AGES) + 1

        proxy.requests = []
        await _push(registry, rig, "created/newest", "newer", days=0.1)
        assert (await rounds.once()).is_success
        assert _asked(rig) == {"newer"}
        # When an image was made is asked once.
        assert len(proxy.seen("GET .*/blobs/")) == 1
        # What is not among the newest any more goes in its time.
        rig.clocks.pass_by(6 * DAY)
        assert (await rounds.once()).retention.removed == 0
        rig.clocks.pass_by(2 * DAY)
        assert (await rounds.once()).retention.removed == 1
        assert rig.publisher.removed() == [f"{name}:middle"]


async def test_images_grow_too_old_as_time_goes_by_and_not_when_a_clock_is_set(
    registry: RegistryServer, rig: Rig
) -> None:
    await _push_all(registry, rig, "created/age")
    name = f"{registry.address}/created/age"
    rig.lists.wish(wish(name, ChosenTags(max_age=30 * DAY)))
    async with rig.rounds(removal_share=1.0) as rounds:
        assert (await rounds.once()).is_success
        assert _asked(rig) == {"new", "middle"}

        rig.clocks.wall += _YEARS
        for _ in range(3):
            assert (await rounds.once()).is_success
            rig.clocks.pass_by(DAY)
        assert _asked(rig) == set()
        rig.clocks.wall -= _YEARS
        assert (await rounds.once()).is_success
        assert rig.publisher.removed() == []
        # Time counts from the beginning: what is wished again is not about to go.
        for _ in range(6):
            rig.clocks.pass_by(DAY)
            assert (await rounds.once()).retention.due == []
        assert _asked(rig) == {"new", "middle"}

        # Made in the future, an image is not old.
        rig.clocks.wall -= _YEARS
        assert (await rounds.once()).is_success
        assert _asked(rig) == {"old"}
        rig.clocks.wall += _YEARS
        assert (await rounds.once()).retention.due == []

        rig.clocks.pass_by(8 * DAY)
        assert (await rounds.once()).retention.removed == 1
        assert rig.publisher.removed() == [f"{name}:old"]
        rig.clocks.pass_by(8 * DAY)
        assert (await rounds.once()).retention.removed == 1
        assert rig.publisher.removed() == [f"{name}:old", f"{name}:middle"]
