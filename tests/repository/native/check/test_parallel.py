"""Work in threads: in order, bounded, and over when its user goes on."""

import threading
from collections import deque
from collections.abc import Iterator

import pytest

from services.repository.native.check.parallel import Workers


def test_results_come_in_order_and_items_are_taken_as_there_is_room() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    with Workers() as workers:
        results = workers.map(lambda number: number * 2, items())
        assert next(results) == 0
        assert len(taken) < 500
        assert list(results) == [number * 2 for number in range(1, 1000)]


def test_items_may_be_added_while_there_are_results() -> None:
    class Todo:
        def __init__(self) -> None:
            self.waiting = deque([0])

        def __iter__(self) -> "Todo":
            return self

        def __next__(self) -> int:
            if not self.waiting:
                raise StopIteration
            return self.waiting.popleft()

    todo = Todo()
    done = []
    with Workers() as workers:
        for number in workers.map(lambda number: number, todo):
            done.append(number)
            if number < 100:
                todo.waiting.extend([2 * number + 1, 2 * number + 2])
    assert sorted(done) == list(range(201))


def test_a_failure_is_raised_and_nothing_runs_afterwards() -> None:
    running = threading.Semaphore(0)

    def work(number: int) -> int:
        if number == 10:
            raise ValueError("ten")
        running.release()
        return number

    with pytest.raises(ValueError, match="ten"), Workers() as workers:
        list(workers.map(work, range(10_000)))
    began = running._value  # noqa: SLF001 - how often it was released
    assert began < 10_000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("check")]
