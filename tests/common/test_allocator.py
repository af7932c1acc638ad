import subprocess
import sys

import pytest

_COUNT = """
import ctypes, sys, threading

from services.common.allocator import limit_arenas

if sys.argv[1] == "limited":
    limit_arenas()
together = threading.Barrier(8)

def allocate():
    together.wait()
    for size in range(10_000, 60_000):
        bytearray(size)

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream)
libc.fflush(stream)
"""
"""Lets eight threads allocate at the same time, then writes what malloc_info(3) says."""


def _arenas(which: str) -> int:
    ended = subprocess.run([sys.executable, "-c", _COUNT, which], capture_output=True, text=True, check=True)
    return ended.stdout.count("<heap nr=")


@pytest.mark.parametrize(("which", "expected"), [("limited", {1, 2}), ("unlimited", set(range(3, 10)))])
def test_threads_share_arenas(which: str, expected: set[int]) -> None:
    assert _arenas(which) in expected


_RELEASE = """
import sys

from services.common.allocator import release_free_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

# Too small to be mapped by themselves, and the last one, which stays, keeps the heap from shrinking at its end.
pieces = [bytearray(50_000) for _ in range(1_000)]
last = pieces.pop()
del pieces
before = resident()
release_free_memory()
print(before - resident())
"""


def test_free_memory_is_given_back() -> None:
    ended = subprocess.run([sys.executable, "-c", _RELEASE], capture_output=True, text=True, check=True)
    assert int(ended.stdout) > 40_000_000
