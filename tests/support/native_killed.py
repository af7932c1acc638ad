"""Publishes layers in a process that is killed on the way, at a step that is counted: every change of a file is one."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

from services.common.archive.model import LayerArchive
from tests.support.native import NativeSite, publish

__all__ = ["publish_until"]

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
