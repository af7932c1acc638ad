"""Locks by name."""

import asyncio

from services.node.locks import Locks


async def test_one_at_a_time_of_one_name_and_any_number_of_others() -> None:
    locks = Locks[str]()
    order: list[str] = []

    async def hold(name: str, shown: str) -> None:
        async with locks.hold(name):
            order.append(shown)
            await asyncio.sleep(0)
            order.append(shown)

    await asyncio.gather(hold("a", "1"), hold("a", "2"), hold("b", "3"))
    assert [shown for shown in order if shown != "3"] == ["1", "1", "2", "2"]
    assert order.index("3") < order.index("2")


async def test_a_lock_goes_with_the_last_who_wanted_it() -> None:
    locks = Locks[str]()
    async with locks.hold("a"):
        waiting = [asyncio.create_task(locks.hold("a").__aenter__()) for _ in range(2)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert len(locks) == 1
    assert len(locks) == 0
