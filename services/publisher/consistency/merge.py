"""Several lists in the same order become one, of which only the heads are in memory."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from services.common.digest import Digest

__all__ = ["merge"]


class _Named(Protocol):
    @property
    def digest(self) -> Digest: ...


async def merge(*lists: AsyncGenerator[Any, None]) -> AsyncGenerator[tuple[Digest, Sequence[Any]], None]:
    """Give every digest once, with what each list has of it, or None.

    Parameters
    ----------
    lists
        Of things that have a digest, in the order of their digests; they are closed at the end.
    """
    heads = [await _next(items) for items in lists]
    try:
        while found := [head for head in heads if head is not None]:
            digest = min(head.digest for head in found)
            row = [head if head is not None and head.digest == digest else None for head in heads]
            yield digest, row
            for number, items in enumerate(lists):
                if row[number] is not None:
                    heads[number] = await _next(items)
    finally:
        for items in lists:
            async with aclosing(items):
                pass


async def _next(items: AsyncIterator[_Named]) -> _Named | None:
    return await anext(items, None)
