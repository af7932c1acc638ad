"""Child processes that a program of the harness starts, watches and always ends."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from harness.forked import ForkedProcess, Forks

__all__ = ["Daemon", "DaemonError", "Service", "wait_until"]


class DaemonError(Exception):
    """A daemon did not start, or ended too early; the text ends with the tail of its log."""


async def wait_until(
    condition: Callable[[], Awaitable[bool]],
    *,
    what: str,
    timeout: float = 300,  # noqa: ASYNC109 - a time-out is the point
) -> None:
    """Poll a condition, quickly first and then slower, until it holds.

    Parameters
    ----------
    condition
        What is polled.
    what
        What it means that it holds, for the error.
    timeout
        Seconds; by default what a machine that is very busy may need for what takes moments.

    Raises
    ------
    TimeoutError
        The condition did not hold within `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = 0.005
    while not await condition():
        if loop.time() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.2)


class Daemon:
    """One child process in a process group of its own, its output in a log file.

    Parameters
    ----------
    name
        For messages.
    argv
        Program and arguments.
    log
        File that gets standard output and error, appended.
    env
        Environment variables added to this process's own.
    descriptors
        Descriptors that the child has as well, under the same numbers.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self.env = dict(env or {})
        self._descriptors = tuple(descriptors)
        self._process: asyncio.subprocess.Process | ForkedProcess | None = None

    @property
    def pid(self) -> int:
        """Process id of the running child."""
        if self._process is None:
            raise DaemonError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, ready: Callable[[], Awaitable[bool]], *, timeout: float = 300) -> None:  # noqa: ASYNC109
        """Start the child and wait until it is ready.

        Raises
        ------
        DaemonError
            It ended, or was not ready within `timeout` seconds.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = await self._started()

        async def ready_or_dead() -> bool:
            return not self.running or await ready()

        try:
            await wait_until(ready_or_dead, timeout=timeout, what=f"{self.name} gets ready")
        except TimeoutError as error:
            await self.kill()
            raise DaemonError(f"{error}\n{self.tail()}") from None
        if not self.running:
            raise DaemonError(f"{self.name} ended with status {self._process.returncode}\n{self.tail()}")

    async def _started(self) -> asyncio.subprocess.Process | ForkedProcess:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
                start_new_session=True,
                pass_fds=self._descriptors,
            )

    async def stop(self, *, timeout: float = 180) -> int:  # noqa: ASYNC109
        """End the child with SIGTERM, after `timeout` seconds with SIGKILL; return its exit status."""
        if self._process is None:
            return 0
        if self.running:
            self._process.terminate()
            try:
                async with asyncio.timeout(timeout):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()
        return self._process.returncode or 0

    async def kill(self) -> None:
        """End the child and its process group with SIGKILL."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                # A fork makes its group itself, a little later than it is there.
                if self.running:
                    os.kill(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    def tail(self, lines: int = 30) -> str:
        """Return the last lines of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Service(Daemon):
    """A service of the suite, `python -m MODULE [ARGUMENT...]`.

    Parameters
    ----------
    name
        For messages.
    module
        The module.
    arguments
        Its arguments.
    log
        File that gets standard output and error, appended.
    env
        Environment variables added to this process's own.
    """

    forks: Forks | None = None
    """Starts all of them, or one, where somebody sets it; otherwise each loads itself, as ordinary processes do."""

    def __init__(
        self, name: str, module: str, *arguments: str, log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(name, [sys.executable, "-m", module, *arguments], log=log, env=env)
        self._module = module
        self._arguments = arguments

    async def _started(self) -> asyncio.subprocess.Process | ForkedProcess:
        if self.forks is None:
            return await super()._started()
        environment = {**os.environ, **self.env}
        return await self.forks.start(self._module, self._arguments, env=environment, output=self.log, errors=self.log)
