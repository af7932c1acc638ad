import asyncio

import pytest

from services.common.together import all_of, together


async def _ends(number: int, order: list[int]) -> int:
    for _ in range(10 - number):
        await asyncio.sleep(0)
    order.append(number)
    return number


async def _fails(error: Exception) -> None:
    raise error


async def test_results_are_in_the_order_of_the_works() -> None:
    order: list[int] = []
    assert await all_of(_ends(number, order) for number in (1, 2, 3)) == [1, 2, 3]
    assert order == [3, 2, 1]


async def test_the_first_failure_is_raised_as_it_is_and_ends_the_others() -> None:
    error, ended = ZeroDivisionError("first"), []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(ZeroDivisionError) as caught:
        await all_of((waits(), waits(), _fails(error)))
    assert caught.value is error
    assert (ended, error.__cause__, error.__suppress_context__) == ([True, True], None, True)


async def test_a_failure_of_the_body_ends_its_tasks() -> None:
    async def body() -> None:
        async with together() as group:
            task = group.create_task(asyncio.Event().wait())
            tasks.append(task)
            await asyncio.sleep(0)
            raise KeyError("body")

    tasks: list[asyncio.Task[bool]] = []
    with pytest.raises(KeyError, match="body"):
        await body()
    assert tasks[0].cancelled()


async def test_a_caller_that_is_cancelled_is_cancelled() -> None:
    task = asyncio.create_task(all_of([asyncio.Event().wait()]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
