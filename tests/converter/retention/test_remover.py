"""What a registry or a wish list says wrongly, or not at all, removes nothing; what is gone or dropped goes in time."""

from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from services.converter.model import DAY, ChosenTags, Retention
from services.converter.rounds.rounds import Rounds
from tests.support.converter import Rig, push_small, wish
from tests.support.registries import RegistryServer
from tests.support.registry_faults import Effect, Fault, FaultyRegistry, challenged, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ALWAYS = 1_000_000
_MANIFEST = {"Accept": "application/vnd.oci.image.manifest.v1+json"}


def _body(text: str) -> Effect:
    async def effect(_proxy: FaultyRegistry, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type="application/json")

    return effect


async def _no_image(_proxy: FaultyRegistry, _request: web.Request) -> web.StreamResponse:
    """Say as registries do that there is no such image."""
    return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}, status=404)


async def _days(rounds: Rounds, rig: Rig, days: int) -> None:
    """Let days pass, with a round in each."""
    for _ in range(days):
        rig.clocks.pass_by(DAY)
        await rounds.once()


async def _delete(registry: RegistryServer, name: str, tag: str) -> None:
    """Delete an image from the registry, as its users do."""
    url = f"http://{registry.address}/v2/{name}/manifests/"
    async with aiohttp.ClientSession() as session:
        async with session.head(url + tag, headers=_MANIFEST) as answer:
            digest = answer.headers["Docker-Content-Digest"]
        async with session.delete(url + digest) as answer:
            assert answer.status == 202


@pytest.mark.parametrize(
    "faults",
    [
        [("/", refused(500))],
        [("/", refused(429, retry_after="0"))],
        [("/", refused(401))],
        [("/", challenged('Basic realm="registry"'))],
        [("/", refused(403))],
        [("/", refused(404))],
        [("/manifests/", _no_image), ("/tags/list", refused(500))],
        [("/manifests/", _no_image), ("/tags/list", _body('{"tags": null}'))],
        [("/manifests/", _no_image), ("/tags/list", _body('{"tags": []}'))],
        [("/manifests/", _no_image), ("/tags/list", _body("<html>nothing</html>"))],
        [("/manifests/", _no_image)],  # and the tags are listed all the same
        [("/tags/list", _body('{"tags": []}'))],
        [("/tags/list", _body('{"tags": ["other"]}'))],  # and the images are there all the same
    ],
)
async def test_a_registry_that_misbehaves_for_weeks_deletes_nothing(
    registry: RegistryServer, rig: Rig, tmp_path: Path, faults: list[tuple[str, Effect]]
) -> None:
    repository = f"retention/{tmp_path.name.lower().replace('_', '-')[-40:].strip('-')}"
    for tag in ("v1", "v2"):
        await push_small(registry.address, f"{repository}:{tag}", tag.encode())
    async with FaultyRegistry.before(registry.address) as proxy:
        name = f"{proxy.address}/{repository}"
        policy = Retention(replaced=0, dropped=0, gone=0)
        rig.lists.wish(wish(name, "v1", retention=policy, line=1), wish(name, ChosenTags(), retention=policy, line=2))
        async with rig.rounds(removal_share=1.0) as rounds:
            assert (await rounds.once()).is_success
            proxy.faults = [Fault(f"/v2/.*{path}", effect, times=_ALWAYS) for path, effect in faults]
            await _days(rounds, rig, 4)
            assert rig.publisher.removed() == []
            proxy.faults = []
            rig.publisher.requests = []
            await _days(rounds, rig, 2)
    assert rig.publisher.removed() == []
    assert rig.publisher.asked() == []
    assert set(rig.publisher.checked()) == {f"{name}:v1", f"{name}:v2"}


async def test_an_image_that_was_deleted_goes_after_its_time(registry: RegistryServer, rig: Rig) -> None:
    for tag in ("v1", "v2"):
        await push_small(registry.address, f"retention/deleted:{tag}", tag.encode())
    name = f"{registry.address}/retention/deleted"
    rig.lists.wish(wish(name, "v1", line=1), wish(name, ChosenTags(), line=2))
    async with rig.rounds() as rounds:
        await rounds.once()
        await _delete(registry, "retention/deleted", "v1")
        await rounds.once()
        await _days(rounds, rig, 6)
        assert rig.publisher.removed() == []
    async with rig.rounds() as rounds:  # and what has been said counts for the next process
        await _days(rounds, rig, 1)
        assert rig.publisher.removed() == [f"{name}:v1"]
        await push_small(registry.address, "retention/deleted:v1", b"another one")
        assert (await rounds.once()).is_success
    assert rig.publisher.images[f"{name}:v1"]["state"] == "published"


async def test_an_emptied_repository_is_believed_after_a_month(registry: RegistryServer, rig: Rig) -> None:
    for tag in ("v1", "v2"):
        await push_small(registry.address, f"retention/emptied:{tag}", tag.encode())
    name = f"{registry.address}/retention/emptied"
    rig.lists.wish(wish(name, "v1", line=1), wish(name, ChosenTags(), line=2))
    async with rig.rounds(removal_share=1.0) as rounds:
        await rounds.once()
        for tag in ("v1", "v2"):
            await _delete(registry, "retention/emptied", tag)
        for _ in range(3):  # from the first of these on it is known
            await rounds.once()
            rig.clocks.pass_by(10 * DAY - 60)
        await rounds.once()
        assert rig.publisher.removed() == []
        # One other image, and it is a repository as any: its time begins.
        await push_small(registry.address, "retention/emptied:v3", b"v3")
        await rounds.once()
        await _days(rounds, rig, 6)
        assert rig.publisher.removed() == []
        await _delete(registry, "retention/emptied", "v3")
        for _ in range(4):
            await rounds.once()
            rig.clocks.pass_by(10 * DAY)
        await rounds.once()
    assert sorted(rig.publisher.removed()) == [f"{name}:{tag}" for tag in ("v1", "v2", "v3")]


async def test_an_image_that_comes_back_is_counted_from_the_beginning(registry: RegistryServer, rig: Rig) -> None:
    for tag in ("v1", "v2"):
        await push_small(registry.address, f"retention/back:{tag}", tag.encode())
    async with FaultyRegistry.before(registry.address) as proxy:
        name = f"{proxy.address}/retention/back"
        rig.lists.wish(wish(name, "v1"), wish(name, "v2", line=2))
        gone = [
            Fault("/manifests/v1", _no_image, times=_ALWAYS),
            Fault("/tags/list", _body('{"tags": ["v2"]}'), times=_ALWAYS),
        ]
        async with rig.rounds() as rounds:
            await rounds.once()
            proxy.faults = gone
            await _days(rounds, rig, 6)
            proxy.faults = []
            await _days(rounds, rig, 1)
            proxy.faults = gone
            await _days(rounds, rig, 6)
            assert rig.publisher.removed() == []
            await _days(rounds, rig, 2)
            assert rig.publisher.removed() == [f"{name}:v1"]


async def test_a_clock_that_is_set_removes_nothing(registry: RegistryServer, rig: Rig) -> None:
    for tag in ("v1", "v2"):
        await push_small(registry.address, f"retention/clock:{tag}", tag.encode())
    name = f"{registry.address}/retention/clock"
    rig.lists.wish(wish(name, "v1"), wish(name, "v2", line=2))
    async with rig.rounds() as rounds:
        await rounds.once()
        rig.lists.wish(wish(name, "v2", line=2))
    for year in (1, -20, 30):
        rig.clocks.wall += year * 365 * DAY
        async with rig.rounds() as rounds:
            await rounds.once()
    rig.clocks.booted, rig.clocks.up = "another boot", 5.0
    rig.clocks.wall += 365 * DAY
    async with rig.rounds() as rounds:
        await rounds.once()
        assert rig.publisher.removed() == []
        await _days(rounds, rig, 7)
    assert rig.publisher.removed() == [f"{name}:v1"]


async def test_a_dropped_image_goes_only_after_a_list_that_was_read_whole(registry: RegistryServer, rig: Rig) -> None:
    for tag in ("v1", "v2"):
        await push_small(registry.address, f"retention/dropped:{tag}", tag.encode())
    name = f"{registry.address}/retention/dropped"
    rig.lists.wish(wish(name, "v1"), wish(name, "v2", line=2))
    async with rig.rounds() as rounds:
        await rounds.once()
    rig.lists.wish(wish(name, "v2", line=2), complete=False)
    async with rig.rounds() as rounds:
        await _days(rounds, rig, 8)
        assert rig.publisher.removed() == []
    rig.lists.lists = []  # the list itself is not there: somebody has unmounted it, say
    async with rig.rounds() as rounds:
        await _days(rounds, rig, 8)
        assert rig.publisher.removed() == []
    rig.lists.wish(wish(name, "v2", line=2))
    async with rig.rounds() as rounds:
        await rounds.once()
        rig.lists.wish(source="another.yaml", complete=False)
    async with rig.rounds() as rounds:
        await _days(rounds, rig, 8)
        assert rig.publisher.removed() == []  # the other list may wish it
    rig.lists.lists = [each for each in rig.lists.lists if each.source != "another.yaml"]
    async with rig.rounds() as rounds:
        await rounds.once()
    assert rig.publisher.removed() == [f"{name}:v1"]


async def test_what_another_wish_wants_is_not_dropped(registry: RegistryServer, rig: Rig) -> None:
    await push_small(registry.address, "retention/other:v1", b"v1")
    name = f"{registry.address}/retention/other"
    policy = Retention(replaced=0, dropped=0, gone=None)
    rig.lists.wish(wish(name, "v1", retention=policy), wish(name, ChosenTags(), line=2, retention=policy))
    async with rig.rounds() as rounds:
        await rounds.once()
    rig.lists.wish(wish(name, ChosenTags(), line=2, retention=policy))
    async with rig.rounds() as rounds:
        assert (await rounds.remover.run()).removed == 0  # before the other wish has been looked at
        await _days(rounds, rig, 3)
    assert rig.publisher.removed() == []


async def test_tags_that_a_wish_selects_no_more_are_dropped(registry: RegistryServer, rig: Rig) -> None:
    name = f"{registry.address}/retention/newest"
    rig.lists.wish(wish(name, ChosenTags(newest=2), retention=Retention(replaced=0, dropped=DAY, gone=None)))
    async with rig.rounds() as rounds:
        for version in ("1.0", "1.1", "1.2"):
            await push_small(registry.address, f"retention/newest:{version}", version.encode())
            await rounds.once()
        assert set(rig.publisher.images) == {f"{name}:{version}" for version in ("1.0", "1.1", "1.2")}
        await _days(rounds, rig, 1)
        assert rig.publisher.removed() == [f"{name}:1.0"]


async def test_more_than_a_run_may_remove_removes_nothing_and_is_told(registry: RegistryServer, rig: Rig) -> None:
    for tag in ("a", "b", "c", "d"):
        await push_small(registry.address, f"retention/many:{tag}", tag.encode())
    name = f"{registry.address}/retention/many"
    rig.lists.wish(wish(name, "a"), wish(name, ChosenTags(), line=2))
    async with rig.rounds() as rounds:
        await rounds.once()
        rig.lists.wish(wish(name, "a"))
    async with rig.rounds(removals=2, removal_share=1.0) as rounds:
        await _days(rounds, rig, 8)
        result = await rounds.once()
        assert result.retention.withheld
        assert not result.is_success
        assert rig.publisher.removed() == []
        async with rig.state() as state:
            assert b"converter_removals_withheld 3.0" in rig.metrics.render(await state.summary())
    async with rig.rounds(removals=3, removal_share=1.0, dry_run=True) as rounds:
        result = await rounds.once()
        assert len(result.retention.due) == 3
        assert rig.publisher.removed() == []
    async with rig.rounds(removals=3, removal_share=1.0) as rounds:
        assert (await rounds.once()).is_success
    assert sorted(rig.publisher.removed()) == [f"{name}:{tag}" for tag in ("b", "c", "d")]


async def test_a_publisher_that_cannot_remove_is_asked_again(registry: RegistryServer, rig: Rig) -> None:
    for tag in ("v1", "v2"):
        await push_small(registry.address, f"retention/again:{tag}", tag.encode())
    name = f"{registry.address}/retention/again"
    rig.lists.wish(wish(name, "v1"), wish(name, "v2", line=2))
    async with rig.rounds() as rounds:
        await rounds.once()
        rig.lists.wish(wish(name, "v2", line=2))
    async with rig.rounds() as rounds:
        await _days(rounds, rig, 6)
        rig.publisher.broken = 503
        rig.clocks.pass_by(DAY)
        assert (await rounds.remover.run()).failed == 1
        rig.publisher.broken = None
        del rig.publisher.images[f"{name}:v1"]  # as after a kill between the removal and its record
        assert (await rounds.remover.run()).removed == 1
        assert (await rounds.remover.run()).due == []
