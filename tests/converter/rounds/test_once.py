"""One round: what is wished is asked for, what is unchanged costs one request, and failures stay where they are."""

from dataclasses import replace

import pytest

from services.common.errors import SuiteError
from services.converter.model import ChosenTags, ExactDigest
from services.registry.platform import Platform
from tests.support.converter import Rig, push_small, wish
from tests.support.registries import RegistryServer
from tests.support.registry_faults import Fault, FaultyRegistry, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_new_image_is_asked_for_by_its_digest_and_with_all_that_its_wish_says(
    registry: RegistryServer, rig: Rig
) -> None:
    name = f"{registry.address}/once/new"
    digest = await push_small(registry.address, "once/new:v1", b"first")
    rig.verifier.verified = {"key": "a key"}
    rig.lists.wish(wish(name, "v1", platforms=(Platform("linux", "arm64", "v8"),), priority=3))
    async with rig.rounds() as rounds:
        result = await rounds.once()
    assert result.is_success
    assert rig.publisher.asked() == [
        {
            "name": f"{name}:v1",
            "digest": digest.oci,
            "platforms": ["linux/arm64/v8"],
            "priority": 3,
            "verified": {"key": "a key"},
            "keep_replaced_seconds": 14 * 86400.0,
        }
    ]
    assert rig.verifier.asked == [(f"{name}:v1", digest)]


async def test_what_is_unchanged_is_one_request_and_told_to_the_publisher(registry: RegistryServer, rig: Rig) -> None:
    name = "once/unchanged"
    for tag in ("a", "b", "c"):
        await push_small(registry.address, f"{name}:{tag}", tag.encode())
    async with FaultyRegistry.before(registry.address) as proxy:
        rig.lists.wish(wish(f"{proxy.address}/{name}", ChosenTags()))
        async with rig.rounds() as rounds:
            assert (await rounds.once()).is_success
        asked, rig.publisher.requests, proxy.requests = rig.publisher.asked(), [], []
        async with rig.rounds() as rounds:
            assert (await rounds.once()).is_success
        assert len(proxy.seen("/manifests/")) == 3
        assert len(proxy.seen("/tags/list")) == 1
        assert len(proxy.requests) == 4
    assert sorted(body["name"].rpartition(":")[2] for body in asked) == ["a", "b", "c"]
    assert [line for line, _ in rig.publisher.requests] == ["POST /v1/images/checked"]
    assert sorted(each.rpartition(":")[2] for each in rig.publisher.checked()) == ["a", "b", "c"]


async def test_a_tag_that_has_moved_is_asked_for_with_its_new_digest(registry: RegistryServer, rig: Rig) -> None:
    name = f"{registry.address}/once/moved"
    await push_small(registry.address, "once/moved:v1", b"first")
    rig.lists.wish(wish(name, "v1"))
    async with rig.rounds() as rounds:
        await rounds.once()
        second = await push_small(registry.address, "once/moved:v1", b"second")
        assert (await rounds.once()).is_success
    assert [body["digest"] for body in rig.publisher.asked()][1:] == [second.oci]


async def test_an_image_of_a_digest_is_asked_for_without_looking(registry: RegistryServer, rig: Rig) -> None:
    digest = await push_small(registry.address, "once/digest:v1", b"first")
    async with FaultyRegistry.before(registry.address) as proxy:
        rig.lists.wish(wish(f"{proxy.address}/once/digest", ExactDigest(digest)))
        async with rig.rounds() as rounds:
            assert (await rounds.once()).is_success
            assert (await rounds.once()).is_success
        assert proxy.requests == []
    assert [body["name"] for body in rig.publisher.asked()] == [f"{proxy.address}/once/digest@{digest.oci}"]


async def test_what_is_not_verified_is_not_asked_for_and_tried_again_later(registry: RegistryServer, rig: Rig) -> None:
    await push_small(registry.address, "once/unsigned:v1", b"first")
    rig.lists.wish(wish(f"{registry.address}/once/unsigned", "v1"))
    rig.verifier.refusal = SuiteError("nobody has signed it")
    async with rig.rounds() as rounds:
        result = await rounds.once()
        assert result.not_asked == 1
        assert not result.is_success
        assert rig.publisher.asked() == []
        rig.verifier.refusal = None
        await rounds.once()
        assert rig.publisher.asked() == []  # not due yet
        rig.clocks.pass_by(11)
        assert (await rounds.once()).is_success
    assert len(rig.publisher.asked()) == 1


async def test_a_publisher_that_has_lost_an_image_is_asked_once_more(registry: RegistryServer, rig: Rig) -> None:
    await push_small(registry.address, "once/lost:v1", b"first")
    rig.lists.wish(wish(f"{registry.address}/once/lost", "v1"))
    async with rig.rounds() as rounds:
        await rounds.once()
        rig.publisher.images.clear()
        assert (await rounds.once()).is_success
    assert len(rig.publisher.asked()) == 2


async def test_a_publisher_that_does_not_answer_gets_it_later(registry: RegistryServer, rig: Rig) -> None:
    await push_small(registry.address, "once/down:v1", b"first")
    rig.lists.wish(wish(f"{registry.address}/once/down", "v1"))
    rig.publisher.broken = 503
    async with rig.rounds() as rounds:
        assert (await rounds.once()).not_asked == 1
    rig.publisher.broken = None
    rig.clocks.pass_by(11)
    async with rig.rounds() as rounds:
        assert (await rounds.once()).is_success
    assert len(rig.publisher.images) == 1


async def test_a_failing_image_and_a_failing_registry_hold_up_no_other(registry: RegistryServer, rig: Rig) -> None:
    for tag in ("good", "bad"):
        await push_small(registry.address, f"once/neighbours:{tag}", tag.encode())
    faults = (
        Fault("/neighbours/manifests/bad", refused(500), times=100),
        Fault("/v2/broken/", refused(500), times=100),
    )
    async with FaultyRegistry.before(registry.address, *faults) as proxy:
        rig.lists.wish(
            wish("127.0.0.1:1/nobody/answers", "v1"),
            wish(f"{proxy.address}/once/neighbours", ChosenTags(), line=2),
            wish(f"{proxy.address}/broken/repository", ChosenTags(), line=3),
            wish(f"{proxy.address}/broken/ignored", ChosenTags(), line=4, may_fail=True),
        )
        async with rig.rounds() as rounds:
            result = await rounds.once()
    assert [body["name"] for body in rig.publisher.asked()] == [f"{proxy.address}/once/neighbours:good"]
    assert sorted(problem.split(":")[1] for problem in result.problems) == ["1", "2", "3"]


async def test_what_a_publisher_refuses_fails_the_round_and_not_its_neighbours(
    registry: RegistryServer, rig: Rig
) -> None:
    name = f"{registry.address}/once/refused"
    for tag in ("good", "bad"):
        await push_small(registry.address, f"once/refused:{tag}", tag.encode())
    rig.publisher.refused[f"{name}:bad"] = "a layer is damaged"
    rig.lists.wish(wish(name, ChosenTags()))
    async with rig.rounds() as rounds:
        assert (await rounds.once()).not_published == 1
    async with rig.state() as state:
        (late,) = await state.copies.late(10)
    assert late.name == f"{name}:bad"
    assert late.reason == "a layer is damaged"


async def test_of_two_wishes_for_one_image_the_higher_decides(registry: RegistryServer, rig: Rig) -> None:
    name = f"{registry.address}/once/two"
    await push_small(registry.address, "once/two:v1", b"first")
    rig.lists.wish(
        wish(name, "v1", line=1, platforms=(Platform("linux", "arm64"),)),
        wish(name, ChosenTags(include=("v*",)), line=2, priority=5),
    )
    async with rig.rounds() as rounds:
        await rounds.once()
        await rounds.once()
    assert rig.publisher.images[f"{name}:v1"]["state"] == "published"
    assert rig.publisher.asked()[-1]["platforms"] == ["linux/amd64"]


async def test_a_wish_that_is_another_one_by_now_has_its_images_asked_for_anew(
    registry: RegistryServer, rig: Rig
) -> None:
    name = f"{registry.address}/once/changed"
    await push_small(registry.address, "once/changed:v1", b"first")
    rig.lists.wish(wish(name, "v1"))
    async with rig.rounds() as rounds:
        await rounds.once()
    rig.lists.wish(replace(wish(name, "v1"), platforms=(Platform("linux", "arm64"),)))
    async with rig.rounds() as rounds:
        await rounds.once()
        await rounds.once()
    assert [body["platforms"] for body in rig.publisher.asked()] == [["linux/amd64"], ["linux/arm64"]]


async def test_a_dry_run_asks_for_nothing(registry: RegistryServer, rig: Rig) -> None:
    await push_small(registry.address, "once/dry:v1", b"first")
    rig.lists.wish(wish(f"{registry.address}/once/dry", "v1"))
    async with rig.rounds(dry_run=True) as rounds:
        await rounds.once()
    assert rig.publisher.requests == []
    async with rig.rounds() as rounds:
        await rounds.once()
    assert len(rig.publisher.asked()) == 1
