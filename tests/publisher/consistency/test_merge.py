"""Lists in the same order become one."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.common.digest import Digest
from services.publisher.consistency.merge import merge


@dataclass(frozen=True)
class _Item:
    digest: Digest
    source: int


async def _items(numbers: set[int], source: int, closed: list[int] | None = None) -> AsyncGenerator[_Item, None]:
    try:
        for number in sorted(numbers):
            yield _Item(Digest(f"{number:064x}"), source)
    finally:
        if closed is not None:
            closed.append(source)


@given(st.lists(st.sets(st.integers(0, 30)), min_size=3, max_size=3))
async def test_every_digest_comes_once_with_what_each_list_has(numbers: list[set[int]]) -> None:
    expected = [
        (f"{number:064x}", [source if number in numbers[source] else None for source in range(3)])
        for number in sorted(set.union(*numbers))
    ]
    async with aclosing(merge(*(_items(numbers[source], source) for source in range(3)))) as rows:
        found = [(digest, [item and item.source for item in row]) async for digest, row in rows]
    assert found == expected


async def test_lists_are_closed_when_nobody_reads_on() -> None:
    closed: list[int] = []
    async with aclosing(merge(*(_items({1, 2, 3}, source, closed) for source in range(3)))) as rows:
        await anext(rows)
    assert closed == [0, 1, 2]
