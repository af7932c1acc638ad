import asyncio

import pytest

from services.converter.rounds.side_by_side import failures, side_by_side


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 20])
async def test_every_item_is_worked_on_once(count: int) -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        await asyncio.sleep(0)
        done.append(item)

    await side_by_side(range(count), work, workers=4)
    assert sorted(done) == list(range(count))


async def test_no_more_are_worked_on_than_there_are_workers() -> None:
    working, most = 0, 0

    async def work(_item: int) -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        working -= 1

    await side_by_side(range(20), work, workers=4)
    assert most == 4


async def test_the_first_failure_ends_the_others_and_is_raised() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        if item == 1:
            raise ValueError("one")
        await asyncio.Event().wait()
        done.append(item)

    with pytest.raises(ValueError, match="one"):
        await side_by_side(range(20), work, workers=4)
    assert done == []


async def test_those_that_say_that_they_failed_are_counted() -> None:
    async def work(item: int) -> bool:
        await asyncio.sleep(0)
        return item % 3 != 0

    assert await failures(range(20), work) == 7
