"""The C library's memory allocator.

glibc gives threads that allocate at the same time an arena each, up to eight for every core, and keeps them: blocking
work in threads of its own then costs some 15 MB for every one that ever ran beside another, long after it ended. What
is free within an arena it keeps as well, until it is told to give it back.
"""

import ctypes
from typing import Final

__all__ = ["limit_arenas", "release_free_memory"]

_M_ARENA_MAX: Final = -8
"""Parameter of mallopt(3)."""

_ARENAS: Final = 2
"""Enough for the event loop and the work beside it; hashing and compression hardly allocate."""


def limit_arenas() -> None:
    """Keep the number of arenas small; to be called before there are threads."""
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def release_free_memory() -> None:
    """Give back to the system what is free: to be called after work that has used much. Blocks for milliseconds."""
    ctypes.CDLL(None).malloc_trim(0)
