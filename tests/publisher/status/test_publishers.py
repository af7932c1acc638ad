"""Which publishers people are told of, and what each is."""

from services.publisher.status.publishers import Publishers, Standing, standing_of
from tests.support.journal import publisher_record


def test_one_that_is_alone_is_nothing_to_tell_of_however_often_it_was_started() -> None:
    present = publisher_record("a", name="one", leads=True)
    gone = [publisher_record(id_, name="one", gone=True, seen_at=10) for id_ in "bc"]
    publishers = Publishers([*gone, present])
    assert publishers.shown == [present]
    assert publishers.are_several is False
    assert publishers.counts == {Standing.LEADING: 1, Standing.FOLLOWING: 0, Standing.ENDED: 0, Standing.GONE: 0}


def test_who_leads_comes_first_and_who_has_gone_last() -> None:
    gone = publisher_record("a", name="an early one", gone=True, leads=True)
    second = publisher_record("b", name="two")
    first = publisher_record("c", name="one")
    leader = publisher_record("d", name="zero", leads=True)
    publishers = Publishers([gone, second, first, leader])
    assert publishers.shown == [leader, first, second, gone]
    assert [standing_of(record) for record in publishers.shown] == ["leading", "following", "following", "gone"]
    assert publishers.are_several is True
    assert publishers.counts == {Standing.LEADING: 1, Standing.FOLLOWING: 2, Standing.ENDED: 0, Standing.GONE: 1}


def test_one_that_has_gone_several_times_is_shown_as_it_was_seen_last() -> None:
    records = [publisher_record(f"{seen}", name="lost", gone=True, seen_at=seen) for seen in (20, 30, 10)]
    assert [record.seen_at for record in Publishers(records).shown] == [30]


def test_one_that_has_ended_is_shown_where_there_are_several() -> None:
    ended = publisher_record("a", name="former", gone=True, ended=True)
    leader, other = publisher_record("b", name="one", leads=True), publisher_record("c", name="two")
    assert Publishers([ended, leader]).are_several is False
    several = Publishers([ended, leader, other])
    assert several.are_several is True
    assert several.shown == [leader, other, ended]
    assert several.counts[Standing.ENDED] == 1


def test_two_on_one_machine_have_one_name_and_are_both_shown() -> None:
    publishers = Publishers([publisher_record("b"), publisher_record("a", leads=True)])
    assert [record.id for record in publishers.shown] == ["a", "b"]


def test_names_are_known_as_long_as_the_publisher_is() -> None:
    publishers = Publishers([publisher_record("a", name="one", gone=True), publisher_record("b", name="one")])
    assert publishers.name_of("a") == "one"
    assert publishers.name_of("c") == "c"
