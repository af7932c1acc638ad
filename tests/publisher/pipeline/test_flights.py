"""Layers on their way are somebody's: all that one wants, or none."""

import asyncio

from services.publisher.pipeline.flights import Flights
from tests.support.journal import numbered

ONE, TWO, THREE = map(numbered, range(1, 4))


def test_all_are_taken_or_none() -> None:
    flights = Flights()
    assert flights.take([ONE, TWO])
    assert not flights.take([TWO, THREE])
    assert set(flights.digests) == {ONE, TWO}
    assert flights.take([THREE])
    assert flights.take([])


async def test_a_landing_is_waited_for() -> None:
    flights = Flights()
    flights.take([ONE, TWO, THREE])
    waiting = asyncio.create_task(flights.landed([ONE, TWO]))
    for landed in (THREE, ONE):
        flights.land([landed])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    flights.land([TWO])
    await waiting
    assert flights.take([ONE, TWO, THREE])
