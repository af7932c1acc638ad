"""What the page says in situations that pass."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from services.common.digest import Digest
from services.publisher.consistency.model import CheckOutcome
from services.publisher.journal.image_model import ImageState, ImageSummary
from services.publisher.journal.model import LayerRecord, LayerState, Pause, Selection, Summary
from services.publisher.journal.publishers import PublisherRecord
from services.publisher.page.content import LayerList, LayersContent
from services.publisher.page.renderer import PageRenderer
from services.publisher.pipeline.progress import Stage, SweepState, TransactionProgress
from services.publisher.status.model import DiskSpace, PublisherStatus
from services.publisher.status.publishers import Publishers
from tests.support.journal import layer_record, numbered, publisher_record
from tests.support.publisher import REPOSITORY

_NOW = 1_000_000.0


def _rendered(
    *,
    transaction: TransactionProgress | None = None,
    pause: Pause | None = None,
    obstacle: str | None = None,
    sweep: SweepState | None = None,
    disks: Mapping[str, DiskSpace | None] | None = None,
    latest: LayerRecord | None = None,
    trusted_until: float | None = None,
    publishers: Sequence[PublisherRecord] = (),
    leads: bool = True,
    publishing: int = 0,
    check: CheckOutcome | None = None,
) -> str:
    status = PublisherStatus(
        now=_NOW,
        repository=REPOSITORY,
        publishers=Publishers(publishers),
        leads=leads,
        layers=Summary(
            counts=dict.fromkeys(LayerState, 0) | {LayerState.PUBLISHING: publishing}, refused=0, oldest=_NOW - 7200
        ),
        images=ImageSummary(counts=dict.fromkeys(ImageState, 0), refused=0, oldest=None),
        pause=pause,
        obstacle=obstacle,
        transaction=transaction,
        sweep=sweep or SweepState(),
        check=check,
        trusted_until=trusted_until,
        spool_used=5 << 30,
        spool_limit=20 << 30,
        disks=disks or {},
    )
    layers = LayerList(selection=Selection(), records=(), newest=None, older=None)
    html = PageRenderer().layers_live(LayersContent(status=status, latest=latest, failures=(), layers=layers))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_transaction_under_way() -> None:
    digests = tuple(map(numbered, range(11)))
    text = _rendered(
        transaction=TransactionProgress(digests=digests, size=3 << 30, stage=Stage.ADDING, added=4, since=_NOW - 90)
    )
    assert "adding layers for 2 min" in text
    assert "Layers 11" in text
    assert "Files 3.0 GiB" in text
    assert "Added 4 of 11" in text
    assert "and 3 others" in text
    assert "None is open" not in text


def test_the_layer_that_was_published_last() -> None:
    latest = layer_record(Digest("a" * 64), LayerState.PUBLISHED, revision=1234, updated_at=_NOW - 30)
    assert "Last published 30 s ago , in revision 1 234: aaaaaaaaaaaa" in _rendered(latest=latest)


def test_a_pause_comes_before_any_obstacle() -> None:
    text = _rendered(pause=Pause(since=_NOW - 3600, reason="a <new> disk"), obstacle="somebody else's transaction")
    assert "Publishing has been paused for 1 h: a &lt;new&gt; disk. Announcements are taken" in text
    assert "somebody" not in text


@pytest.mark.parametrize(
    ("free", "low"),
    [((1 << 30) - 1, True), (1 << 30, False)],
)
def test_a_disk_that_is_nearly_full(free: int, *, low: bool) -> None:
    text = _rendered(disks={"spool": DiskSpace(free=free, total=100 << 30), "state": None})
    assert ("The spool\N{RIGHT SINGLE QUOTATION MARK}s disk is nearly full" in text) == low
    assert "journal" not in text.lower()


def test_a_small_disk_is_nearly_full_by_its_share() -> None:
    assert "nearly full" not in _rendered(disks={"state": DiskSpace(free=100 << 20, total=1 << 30)})
    assert "nearly full" in _rendered(disks={"state": DiskSpace(free=20 << 20, total=1 << 30)})


def test_what_waits_and_what_the_sweep_came_to() -> None:
    text = _rendered(sweep=SweepState(begun=2, ended=2, ended_at=_NOW - 5, found=3))
    assert "Oldest layer that waits 2 h ago" in text
    assert "Last sweep 5 s ago , found 3" in text
    assert "Spool 5.0 GiB of 20.0 GiB" in text
    text = _rendered(sweep=SweepState(begun=3, ended=3, ended_at=_NOW - 5, error="the store is down"))
    assert "The last sweep of the bucket failed: the store is down" in text
    assert "under way" in _rendered(sweep=SweepState(begun=1))


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (0, "The whitelist has expired: clients cannot mount the repository"),
        (-3, "The whitelist has expired: clients cannot mount the repository"),
        (6, "The whitelist expires in 6 d : clients cannot mount the repository then"),
        (8, None),
        (None, None),
    ],
)
def test_a_whitelist_that_expires(days: int | None, text: str | None) -> None:
    rendered = _rendered(trusted_until=None if days is None else _NOW + days * 86400)
    assert ("Renew it: cvmfs_server resign , or thin-repository resign" in rendered) == (text is not None)
    assert text is None or text in rendered
    assert ("Whitelist expires" in rendered) == (days is not None)


def test_one_publisher_is_nothing_to_tell_of() -> None:
    alone = publisher_record("a", leads=True)
    assert "Publishers" not in _rendered(publishers=[alone, publisher_record("b", gone=True)])
    assert "Publishers" not in _rendered(publishers=[])


def test_several_publishers_and_one_that_has_gone() -> None:
    text = _rendered(
        publishers=[
            publisher_record("a", name="one", gone=True, started_at=_NOW - 86400, seen_at=_NOW - 120),
            publisher_record("b", name="<two>", leads=True, seen_at=_NOW - 3, layers=1234),
            publisher_record("c", name="three", seen_at=_NOW - 2, images=5, started_at=_NOW - 7200),
        ]
    )
    assert "&lt;two&gt; leading 1 234 0" in text
    assert "three following 0 5 2 h ago 2 s ago one gone 0 0 1 d ago 2 min ago" in text
    assert "No publisher leads" not in text


def test_that_no_publisher_leads() -> None:
    text = _rendered(publishers=[publisher_record("a", name="one"), publisher_record("b", name="two")])
    assert "No publisher leads: announcements are taken" in text


def test_what_the_last_check_has_come_to() -> None:
    outcome = CheckOutcome(ended_at=_NOW - 60, layers=5, images=2, disagreements=0)
    assert "Last check" not in _rendered()
    assert "Last check 1 min ago , all agree" in _rendered(check=outcome)
    text = _rendered(check=replace(outcome, disagreements=3))
    assert "Last check 1 min ago , 3 disagreements" in text
    assert "Repository, journal and bucket disagree about 3 layers or images: thinctl check says which" in text
    text = _rendered(check=replace(outcome, error="the <store> is down"))
    assert "Last check 1 min ago , not finished" in text
    assert "The last check could not be finished: the &lt;store&gt; is down" in text


def test_what_one_says_that_stands_by() -> None:
    both = [publisher_record("a", name="one"), publisher_record("b", name="two", leads=True)]
    text = _rendered(publishers=both, leads=False, publishing=3)
    assert "Another publisher has one open: 0 images, 3 layers." in text
    assert "Last sweep" not in text
    assert "None is open." in _rendered(publishers=both[1:], publishing=3)
