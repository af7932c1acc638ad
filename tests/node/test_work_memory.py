"""How much work is done at the same time, in which order, and what becomes of it when somebody waits no more."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.node.metrics import NodeMetrics
from services.node.work_memory import LEAST_MEMORY, SMALL_WORK, WorkMemory
from tests.support.metrics import counted, samples

MIB = 1 << 20
LARGE = 12 * MIB
"""Two of these have room, and one that is small."""


class Work:
    """Pieces of work that want memory."""

    def __init__(self) -> None:
        self.metrics = NodeMetrics()
        self.memory = WorkMemory(LEAST_MEMORY, metrics=self.metrics)
        self.begun = ""
        """The names of those that have got it, one letter each."""
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, names: str, size: int = LARGE) -> None:
        """Begin work."""
        for name in names:
            self._add(name, self._new(name, size))
        await self.settled()

    async def ask_on(self, name: str, size: int = LARGE) -> None:
        """Go on with work."""
        self._add(name, self._step(name, size))
        await self.settled()

    def _add(self, name: str, work: "asyncio._CoroutineLike[None]") -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(work)

    async def _new(self, name: str, size: int) -> None:
        async with self.memory.begin(size):
            await self._hold(name)

    async def _step(self, name: str, size: int) -> None:
        async with self.memory.go_on(size):
            await self._hold(name)

    async def _hold(self, name: str) -> None:
        self.begun += name
        await self._ends[name].wait()

    def let_go(self, name: str) -> None:
        """Have work end soon."""
        self._ends[name].set()

    async def end(self, names: str) -> None:
        """End work that has begun."""
        for name in names:
            self.let_go(name)
        await self.settled()

    def cancel(self, names: str) -> None:
        """Have nobody wait any more."""
        for name in names:
            self._tasks[name].cancel()

    async def settled(self) -> None:
        """Wait until nobody does anything."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """End everything."""
        self.cancel("".join(self._tasks))
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def shown(self) -> dict[str, float]:
        """Return what is shown to people."""
        return dict(samples(self.metrics.render(None).decode()))


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    work = Work()
    yield work
    await work.close()
    assert work.shown()["thin_node_work_memory_bytes"] == 0
    await work.ask("xy")
    assert work.begun.endswith("xy"), "something is still held"
    await work.close()


async def test_what_has_no_room_waits_in_order(work: Work) -> None:
    await work.ask("abcd")
    assert work.begun == "ab"
    await work.end("b")
    assert work.begun == "abc"
    await work.end("ac")
    assert work.begun == "abcd"


async def test_what_is_larger_than_all_there_is_works_alone(work: Work) -> None:
    await work.ask("a", 1 << 40)
    await work.ask("b", SMALL_WORK + 1)
    assert work.begun == "a"
    await work.end("a")
    assert work.begun == "ab"
    await work.ask("c", 1 << 40)
    assert work.begun == "ab"
    await work.end("b")
    assert work.begun == "abc"


async def test_small_work_neither_waits_for_large_work_nor_holds_it_up(work: Work) -> None:
    await work.ask("abcd")
    await work.ask("efg", SMALL_WORK)
    assert work.begun == "abe"
    await work.end("e")
    assert work.begun == "abef"
    await work.end("a")
    assert work.begun == "abefc"


async def test_the_next_step_comes_before_what_is_new_and_both_come(work: Work) -> None:
    await work.ask("abcd")
    await work.ask_on("s")
    await work.ask_on("t")
    await work.end("a")
    assert work.begun == "abs"
    await work.end("bs")
    assert work.begun == "abstc"


async def test_a_next_step_that_fits_does_not_wait_for_what_is_new(work: Work) -> None:
    await work.ask("a", 14 * MIB)
    await work.ask("b", 20 * MIB)
    await work.ask_on("s", 8 * MIB)
    assert work.begun == "as"


async def test_who_waits_no_more_is_passed_over(work: Work) -> None:
    await work.ask("abcde")
    work.cancel("c")
    # Before it has noticed.
    await work.end("a")
    assert work.begun == "abd"
    await work.end("b")
    assert work.begun == "abde"


async def test_one_that_is_cancelled_when_its_turn_has_come_gives_it_back(work: Work) -> None:
    await work.ask("ab")
    await work.ask("cd")
    work.let_go("a")
    await asyncio.sleep(0)
    work.cancel("c")
    await work.settled()
    assert work.begun == "abd"


async def test_a_large_one_that_waits_no_more_lets_those_behind_it_go(work: Work) -> None:
    await work.ask("a")
    await work.ask("b", 20 * MIB)
    await work.ask("c")
    assert work.begun == "a"
    work.cancel("b")
    await work.settled()
    assert work.begun == "ac"


async def test_what_is_held_and_waited_for_is_shown(work: Work) -> None:
    await work.ask("abc")
    assert work.shown()["thin_node_work_memory_bytes"] == 2 * LARGE
    assert work.shown()["thin_node_memory_waits_under_way"] == 1
    await work.end("a")
    assert work.shown()["thin_node_memory_waits_under_way"] == 0
    assert counted(work.shown(), "thin_node_memory_waits_total") == {'{outcome="ok"}': 1}
