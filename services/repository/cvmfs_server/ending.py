"""Ending a program with all that it has started: asked first, and killed only where that does not help.

`cvmfs_server` is a shell that undoes what it has begun when it is asked to end. One that is killed leaves its lock to
the CVMFS client that it has just mounted, which holds it for as long as it lives (see `publishing_lock`).
"""

import asyncio
import contextlib
import os
import signal
from collections import defaultdict
from contextlib import ExitStack
from typing import Final

__all__ = ["end_tree", "process_gone"]

_GRACE: Final = 60
"""Seconds that a program has from being asked to end to being killed."""


async def end_tree(leader: int, *, grace: float = _GRACE) -> None:
    """Ask a program that leads a process group to end, with what it has started; kill what has not ended after a grace.

    What it has started in other groups and sessions is asked as well: cvmfs_server runs what it does for another owner
    by runuser(1), which makes a session of it. Daemons, which have given up their parents, are left alone: the CVMFS
    client is one.

    Parameters
    ----------
    leader
        The program; its parent collects it.
    grace
        Seconds that it has to end.
    """
    with ExitStack() as stack:
        started = {process: _held(process, stack) for process in (leader, *_descendants(leader))}
        living = {process: descriptor for process, descriptor in started.items() if descriptor is not None}
        if leader in living:
            _signal_group(leader, signal.SIGTERM)
        for process, descriptor in living.items():
            if process != leader:
                _send(descriptor, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                for descriptor in living.values():
                    await process_gone(descriptor)
        except TimeoutError:
            _kill(leader, living, stack)
            for descriptor in living.values():
                await process_gone(descriptor)


def _kill(leader: int, living: dict[int, int], stack: ExitStack) -> None:
    """Kill what has been asked in vain, and what it has started since."""
    if leader in living:
        _signal_group(leader, signal.SIGSTOP)  # so that it starts nothing more meanwhile
        for process in _descendants(leader):
            descriptor = living.get(process) or _held(process, stack)
            if descriptor is not None:
                living[process] = descriptor
        _signal_group(leader, signal.SIGKILL)
    for descriptor in living.values():
        _send(descriptor, signal.SIGKILL)


async def process_gone(descriptor: int) -> None:
    """Wait until the process that a pidfd names has ended."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)


def _held(process: int, stack: ExitStack) -> int | None:
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return None
    stack.callback(os.close, descriptor)
    return descriptor


def _send(descriptor: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def _descendants(process: int) -> list[int]:
    children = defaultdict[int, list[int]](list)
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="latin-1") as file:
            children[int(file.read().rpartition(")")[2].split()[1])].append(int(name))
    found = [process]
    for known in found:
        found += children[known]
    return found[1:]
