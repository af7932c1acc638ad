"""The rules of what may be removed, at their bounds."""

from dataclasses import replace

import pytest

from services.common.image_name import ImageName
from services.converter.model import DAY
from services.converter.retention.decisions import Ceiling, removals
from services.converter.state.model import Removable
from tests.support.converter import REPOSITORY

_DROPPED = Removable(
    name=ImageName("quay.io/ns/tool:v1"),
    repository=REPOSITORY,
    wish="a key",
    dropped=100.0,
    dropped_why="its wish list wishes it no more",
    dropped_after=7 * DAY,
    missing=0,
    missing_since=None,
    missing_last=None,
    emptied=False,
    gone_after=7 * DAY,
)
_GONE = replace(_DROPPED, dropped=None, dropped_why=None, missing=3, missing_since=100.0, missing_last=100.0 + 7 * DAY)
_NOW = 100.0 + 7 * DAY


def _removed(copy: Removable, now: float, *, wished: bool = False) -> bool:
    return bool(removals([copy], now=now, is_wished=lambda _: wished))


def test_a_dropped_image_goes_after_its_time_unless_somebody_wishes_it() -> None:
    assert _removed(_DROPPED, _NOW)
    assert not _removed(_DROPPED, _NOW - 1)
    assert not _removed(_DROPPED, _NOW, wished=True)
    assert not _removed(replace(_DROPPED, dropped_after=None), _NOW * 1000)


def test_an_image_that_is_gone_goes_after_its_time_though_it_is_wished() -> None:
    assert _removed(_GONE, _NOW, wished=True)
    assert not _removed(_GONE, _NOW - 1)


def test_an_image_of_an_empty_repository_goes_after_a_month_at_least() -> None:
    emptied = replace(_GONE, emptied=True, missing=1000, missing_last=100.0 + 30 * DAY)
    assert _removed(emptied, 100.0 + 30 * DAY, wished=True)
    assert not _removed(replace(emptied, missing_last=100.0 + 30 * DAY - 1), _NOW * 1000)
    assert not _removed(replace(emptied, gone_after=60 * DAY), 100.0 + 60 * DAY - 1)


@pytest.mark.parametrize(
    "copy",
    [
        replace(_GONE, missing=2),
        replace(_GONE, missing_last=100.0 + DAY - 1, gone_after=0),
        replace(_GONE, gone_after=None),
        replace(_GONE, missing=0, missing_since=None, missing_last=None),
    ],
)
def test_it_does_not_go_where_its_registry_has_not_said_so_often_enough(copy: Removable) -> None:
    assert not _removed(copy, _NOW * 1000)


def test_why_it_goes_is_said() -> None:
    (dropped, gone) = removals([_DROPPED, _GONE], now=_NOW, is_wished=lambda _: False)
    assert dropped.why == "its wish list wishes it no more for 7.0 days, and it was kept for 7.0 days"
    assert (
        gone.why == "its registry has said 3 times in 7.0 days that there is none, and its list keeps it for 7.0 days"
    )


@pytest.mark.parametrize(
    ("count", "share", "total", "most"),
    [(20, 0.1, 1000, 20), (20, 0.1, 50, 5), (20, 0.1, 3, 1), (0, 1.0, 1000, 0), (20, 0.0, 1000, 1)],
)
def test_a_ceiling_is_the_lower_of_a_number_and_a_share(count: int, share: float, total: int, most: int) -> None:
    assert Ceiling(count=count, share=share).of(total) == most
