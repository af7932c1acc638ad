"""Works on a repository in a process that is killed on the way, at a step that is counted: every change of a file."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any, Final

from services.common.archive.model import LayerArchive
from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from tests.support.native import NATIVE_NAME, NativeSite, publish

__all__ = ["collect_until", "create_until", "publish_until", "run_until"]

_CHANGES: Final = ("os.rename", "os.remove", "os.link", "os.truncate")
_OPENED: Final = os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY
"""To be written, or, of directories, to be brought to the disk."""


class _Steps:
    """Counts changes of files, as the interpreter announces them before they are made."""

    def __init__(self, last: int | None) -> None:
        self.last = last
        self.count = 0
        self.armed = False
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in _CHANGES or (event == "open" and arguments[2] & _OPENED):
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def publish_until(site: NativeSite, archives: Sequence[LayerArchive], last: int | None, answer: Connection) -> None:
    """Publish layers as one batch; a target for a process of its own.

    Parameters
    ----------
    site
        The repository.
    archives
        The layers.
    last
        The step at which the process is killed; None goes to the end.
    answer
        Gets the number of steps if it comes to the end.
    """
    steps = _Steps(last)

    async def run() -> None:
        async with site.opened() as repository:
            steps.armed = True
            await publish(repository, *archives)
            steps.armed = False

    asyncio.run(run())
    answer.send(steps.count)


def create_until(site: NativeSite, last: int | None, answer: Connection) -> None:
    """Create a repository, and those of its keys that are missing; otherwise as `publish_until`."""
    steps = _Steps(last)
    steps.armed = True
    site.create()
    steps.armed = False
    answer.send(steps.count)


def collect_until(site: NativeSite, now: float, last: int | None, answer: Connection) -> None:
    """Collect everything but the newest revision, at a given time; otherwise as `publish_until`."""
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys, clock=lambda: now)
    collector = Collector(
        access=access,
        retention=Retention(revisions=1, days=0),
        forget=lambda _digests: None,
        patience=0,
        clock=lambda: now,
    )
    steps = _Steps(last)
    steps.armed = True
    collector.collect()
    steps.armed = False
    answer.send(steps.count)


def run_until(
    processes: ForkServerContext, target: Callable[..., None], *arguments: object
) -> tuple[int | None, int | None]:
    """Run one of these in a process; return its status and how many steps there were, if it came to the end."""
    answer, answers = processes.Pipe(duplex=False)
    process = processes.Process(target=target, args=(*arguments, answers))
    process.start()
    answers.close()
    process.join(120)
    try:
        return process.exitcode, answer.recv()
    except EOFError:
        return process.exitcode, None
    finally:
        answer.close()
