"""What the converter remembers, in both kinds of databases."""

from dataclasses import replace

import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.converter.model import DAY, Retention
from services.converter.state.model import KnownImage, Polled, ThinRecord, Want
from services.converter.state.state import State
from services.registry.platform import Platform
from tests.support.converter import REPOSITORY, Clocks
from tests.support.state_databases import OpenState

_OTHER = RepositoryName("other.example.org")
_FIRST, _SECOND = Digest("a" * 64), Digest("b" * 64)
_KEPT = Retention(replaced=DAY, dropped=7 * DAY, gone=None)


def _name(tag: str) -> ImageName:
    return ImageName(f"registry.example.org/physics/tool:{tag}")


def _want(wish: str = "wish", repository: RepositoryName = REPOSITORY, source: str = "list.yaml") -> Want:
    return Want(repository=repository, wish=wish, source=source, retention=_KEPT)


async def test_polls_are_remembered_with_what_they_came_to(new_state: OpenState) -> None:
    async with State(new_state()) as state:
        await state.wishes.failed("one", reason="says \0", due=5.5)
        await state.wishes.failed("one", reason="says nothing", due=6.5)
        await state.wishes.polled(
            {"two": Polled("print", 7.5, 1e9, None), "three": Polled("print", 8, 1e9, "a \0 'b'")}
        )
        found = await state.wishes.every()
        assert (found["one"].failures, found["one"].reason, found["one"].due) == (2, "says nothing", 6.5)
        assert (found["two"].fingerprint, found["two"].due, found["two"].polled_at) == ("print", 7.5, 1e9)
        assert (found["two"].reason, found["three"].reason) == (None, "a \N{REPLACEMENT CHARACTER} 'b'")
        await state.wishes.polled({"one": Polled("other", 9.0, 2e9, None)})
        assert (await state.wishes.every())["one"].failures == 0
        await state.wishes.keep(["one"])
        assert list(await state.wishes.every()) == ["one"]


async def test_a_copy_goes_from_wanted_to_published(new_state: OpenState) -> None:
    async with State(new_state()) as state:
        await state.images.found(_name("1"), _FIRST, [_want(), _want(repository=_OTHER)])
        (copy, other) = await state.copies.due(10)
        assert {copy.repository, other.repository} == {REPOSITORY, _OTHER}
        assert copy.published is None
        assert await state.copies.next_due() == 0
        await state.copies.postponed(copy, reason="not yet", due=state.clock.steady() + 1000)
        (late, _) = sorted(await state.copies.late(10), key=lambda each: -each.attempts)
        assert (late.attempts, late.reason, late.state) == (1, "not yet", "wanted")
        assert await state.copies.hinted(_name("1")) == [_name("1")]
        await state.copies.postponed(copy, reason="not yet", due=state.clock.steady() + 1000)
        assert await state.copies.signed(["another wish"], _FIRST) == []
        assert await state.copies.signed(["wish", "another"], _FIRST) == [_name("1")]
        await state.copies.asked(copy)
        assert [each.repository for each in await state.copies.outstanding(copy.repository)] == [copy.repository]
        assert await state.copies.failed(copy.repository, {_name("1"): "no \0"}) == [_name("1")]
        assert await state.copies.failed(copy.repository, {_name("1"): "no \0"}) == []
        assert await state.copies.failed(copy.repository, {_name("1"): "why"}) == [_name("1")]
        await state.copies.asked_again([_name("1")])
        assert len(await state.copies.due(10)) == 2
        assert await state.copies.published([copy, copy]) == [copy]
        assert await state.copies.lost(copy.repository, [_name("1"), _name("2")]) == 1
        assert await state.copies.published([copy]) == [copy]
        summary = await state.summary()
        assert summary.copies == {"wanted": 1, "asked": 0, "published": 1, "failed": 0}
        assert summary.images == 1
        # Nothing is published any more that was asked for before something else was wanted.
        await state.images.found(_name("1"), _SECOND, [_want()])
        assert await state.copies.published([copy]) == []
        wanted = {each.repository: (each.wanted, each.published) for each in await state.copies.due(10)}
        assert wanted[REPOSITORY] == (_SECOND, _FIRST if copy.repository == REPOSITORY else None)


async def test_what_is_not_wished_any_more_is_dropped_and_forgotten(new_state: OpenState) -> None:
    async with State(new_state()) as state:
        for wish, source in (("one", "a.yaml"), ("two", "b.yaml"), ("three", "c.yaml")):
            await state.images.found(_name(wish), _FIRST, [_want(wish, source=source)])
        dropped = await state.images.dropped_wishes(present=["one"], whole=["a.yaml", "b.yaml"], incomplete=["c.yaml"])
        assert dropped == (_name("two"),)
        # A list that was taken away is one that is neither whole nor incomplete.
        assert await state.images.dropped_wishes(present=["one"], whole=[], incomplete=[]) == ()
        dropped = await state.images.dropped_wishes(present=["one"], whole=["a.yaml"], incomplete=[])
        assert dropped == (_name("three"),)
        await state.images.dropped("one", [_name("one")], "selects it no more")
        assert await state.images.of_wish("one") == {_name("one"): KnownImage(_FIRST, missing=False, dropped=True)}
        found = {each.wish: each for each in await state.copies.removable()}
        assert found["one"].dropped_why == "selects it no more"
        assert (found["two"].dropped_after, found["two"].gone_after, found["two"].emptied) == (7 * DAY, None, False)
        assert await state.copies.count() == 3
        await state.copies.removed(_name("two"), REPOSITORY)
        assert await state.copies.count() == 2
        assert (await state.summary()).images == 2
        await state.images.found(_name("one"), _FIRST, [_want("one")])
        assert [each.wish for each in await state.copies.removable()] == ["three"]


async def test_registries_that_have_an_image_no_more_are_counted(new_state: OpenState) -> None:
    clocks = Clocks()
    async with State(new_state(), machine=clocks) as state:
        await state.images.found(_name("1"), _FIRST, [_want()])
        await state.images.missing(_name("1"), emptied=True)
        clocks.pass_by(1000)
        await state.images.missing(_name("1"), emptied=True)
        (gone,) = await state.copies.removable()
        assert (gone.missing, gone.emptied) == (2, True)
        assert gone.missing_since is not None
        assert gone.missing_last is not None
        assert gone.missing_last - gone.missing_since >= 1000
        assert (await state.images.of_wish("wish"))[_name("1")].missing
        await state.images.missing(_name("1"), emptied=False)  # what was counted before counts for nothing
        (gone,) = await state.copies.removable()
        assert (gone.missing, gone.emptied, gone.missing_since) == (1, False, gone.missing_last)
        await state.images.troubled(_name("1"), "cannot be reached")
        await state.images.unchanged([_name("1")])
        assert await state.copies.removable() == []
        assert (await state.summary()).missing == 0


async def test_times_of_images_are_read_once(new_state: OpenState) -> None:
    async with State(new_state()) as state:
        await state.images.created(_FIRST, 1e9)
        await state.images.created(_FIRST, 2e9)
        await state.images.created(_SECOND, None)
        assert await state.images.creations([_FIRST, _SECOND, Digest("c" * 64)]) == {_FIRST: 1e9, _SECOND: None}


async def test_a_thin_image_is_pushed_once(new_state: OpenState) -> None:
    record = ThinRecord(
        reference="registry.example.org/thin/tool:1",
        name=_name("1"),
        repository=REPOSITORY,
        layout=LayerLayout.FLAT,
        platforms=(Platform("linux", "amd64"), Platform("linux", "arm64", "v8")),
        digest=_FIRST,
        attempts=0,
    )
    async with State(new_state()) as state:
        assert await state.thin.wanted(record)
        assert not await state.thin.wanted(record)
        assert await state.thin.due(10) == [record]
        await state.thin.failed(record, reason="no", due=state.clock.steady() + 1000)
        assert await state.thin.due(10) == []
        assert await state.thin.next_due() == pytest.approx(state.clock.steady() + 1000, abs=300)
        assert (await state.summary()).thin_failing == 1
        await state.thin.pushed(replace(record, digest=_SECOND), _SECOND)  # another one is wanted by now
        assert (await state.summary()).thin_waiting == 1
        await state.thin.pushed(record, _SECOND)
        assert await state.thin.next_due() is None
        assert await state.thin.wanted(replace(record, digest=_SECOND))


async def test_a_change_of_several_statements_is_made_whole_or_not_at_all(new_state: OpenState) -> None:
    async with State(new_state()) as state:
        broken = [_want(), replace(_want(), wish=None)]  # type: ignore[arg-type]  # what no list gives
        with pytest.raises(Exception, match=r"(?i)not.null"):
            await state.images.found(_name("1"), _FIRST, broken)
        assert (await state.summary()).images == 0
        await state.images.found(_name("1"), _FIRST, [_want()])
        assert (await state.summary()).images == 1
