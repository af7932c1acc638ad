"""What waits while work is under way, and what does not."""

import asyncio

from services.node.work_gate import WorkGate


async def test_work_goes_on_side_by_side() -> None:
    gate = WorkGate()
    async with gate.working(), gate.working():
        assert not gate.idle
    assert gate.idle


async def test_nothing_begins_while_it_is_closed() -> None:
    gate = WorkGate()
    begun = asyncio.Event()

    async def work() -> None:
        async with gate.working():
            begun.set()

    async with asyncio.TaskGroup() as group:
        async with gate.working(), gate.closed():
            group.create_task(work())
            await asyncio.sleep(0)
            assert not gate.idle
            assert not begun.is_set()
        await begun.wait()
    assert gate.idle


async def test_what_fails_is_not_under_way_any_more() -> None:
    gate = WorkGate()
    task = asyncio.create_task(_fail(gate))
    await asyncio.wait([task])
    assert isinstance(task.exception(), ZeroDivisionError)
    assert gate.idle


async def _fail(gate: WorkGate) -> None:
    async with gate.working():
        raise ZeroDivisionError
