"""The suite's services in processes that are forked from one which has loaded them, for tests that start hundreds.

A service takes a second of a processor to load, and a fork of what has loaded it a hundredth of that. It is a process
as any other: with its own environment, session and log, and it can be killed. Only its memory says nothing, since it
has what all others need.
"""

import asyncio
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final, cast

__all__ = ["ForkedProcess", "Forks"]

_LOADED: Final = (
    "services.converter.__main__",
    "services.docker2cvmfs.__main__",
    "services.graphdriver.__main__",
    "services.publisher.__main__",
    "services.snapshotter.__main__",
    "services.snapshotter.command",
)


class ForkedProcess:
    """A process that runs a module; it has what is needed of `asyncio.subprocess.Process`.

    Parameters
    ----------
    process
        The process, which has been started.
    pid
        Its process id.
    """

    def __init__(self, process: ForkServerProcess, pid: int) -> None:
        self._process = process
        self.pid = pid
        """Its process id, which is that of its session and process group as well."""

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """Send SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    async def wait(self) -> int:
        """Wait until it has ended; return its exit status."""
        if self.returncode is None:
            ended = asyncio.Event()
            # A loop has one callback for each descriptor, and two may wait.
            descriptor = os.dup(self._process.sentinel)
            loop = asyncio.get_running_loop()
            loop.add_reader(descriptor, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        return self.returncode or 0


class Forks:
    """Starts modules of the suite as `python -m` does.

    Parameters
    ----------
    more
        Further modules that are loaded before the first fork. There is one process for each Python that all are forked
        of, by this or by `multiprocessing`, and what it loads is settled at its start.
    """

    def __init__(self, *, more: Iterable[str] = ()) -> None:
        self.context = multiprocessing.get_context("forkserver")
        """The same for functions."""
        self.context.set_forkserver_preload([*_LOADED, *more])

    async def start(
        self, module: str, arguments: Sequence[str], *, env: Mapping[str, str], output: Path, errors: Path
    ) -> ForkedProcess:
        """Start a module.

        Parameters
        ----------
        module
            A package of which `__main__` has a function `main`, which returns the exit status.
        arguments
            Its arguments.
        env
            Its whole environment.
        output
            File that gets standard output, appended.
        errors
            File that gets standard error, appended; it may be the same.
        """
        how = (module, tuple(arguments), dict(env), output, errors)
        process = self.context.Process(target=_run, args=how, daemon=True)
        # The first one waits until everything has been loaded.
        await asyncio.to_thread(process.start)
        return ForkedProcess(process, cast("int", process.pid))


def _run(module: str, arguments: Sequence[str], env: Mapping[str, str], output: Path, errors: Path) -> None:
    """Become what `python -m` would have become."""
    os.setsid()
    with open(os.devnull, "rb") as nothing, output.open("ab") as said, errors.open("ab") as complained:
        for number, file in enumerate((nothing, said, complained)):
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # of another environment
    sys.argv = [module, *arguments]
    sys.exit(importlib.import_module(f"{module}.__main__").main())
