"""Commands that a program of the harness runs to their end."""

import asyncio
import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from services.common.processes import end_group

__all__ = ["CommandError", "Completed", "run"]


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A command that has ended."""

    argv: tuple[str, ...]
    """Program and arguments."""
    returncode: int
    """Exit status, negative for a signal."""
    stdout: bytes
    """Standard output."""
    stderr: bytes
    """Standard error."""

    @property
    def text(self) -> str:
        """Standard output as text, without white space around it."""
        return self.stdout.decode(errors="surrogateescape").strip()

    @property
    def complaint(self) -> str:
        """Standard error as text, without white space around it."""
        return self.stderr.decode(errors="replace").strip()


class CommandError(Exception):
    """A command failed or took too long; the text holds the command and the end of what it said."""

    def __init__(self, completed: Completed, reason: str) -> None:
        self.completed = completed
        said = completed.complaint or completed.stdout.decode(errors="replace").strip()
        super().__init__(f"{shlex.join(completed.argv)}: {reason}\n{said[-4000:]}".rstrip())


async def run(
    *argv: str | os.PathLike[str],
    input: bytes | Path | None = None,  # noqa: A002 - the name that subprocess uses
    output: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,  # noqa: ASYNC109 - a time-out is the point
    accept: Sequence[int] = (0,),
) -> Completed:
    """Run a command and collect what it writes.

    Parameters
    ----------
    argv
        Program and arguments.
    input
        Standard input: bytes, or a file that the command reads itself.
    output
        File that gets standard output instead of memory.
    env
        Environment variables added to this process's own.
    timeout
        Seconds after which the command is killed, with what it has started.
    accept
        Exit statuses that are no failure.

    Raises
    ------
    CommandError
        It ended with another status, or not within the time.
    """
    words = tuple(os.fspath(word) for word in argv)
    # Files, not pipes: asyncio takes a program for running until its pipes have been read to their ends, which what it
    # has left behind may prevent, and never come to if it does not read them any more.
    with ExitStack() as stack:
        source = stack.enter_context(_opened(input))
        said = stack.enter_context(tempfile.TemporaryFile())
        complained = stack.enter_context(tempfile.TemporaryFile())
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=source,
            stdout=said if output is None else stack.enter_context(output.open("wb")),
            stderr=complained,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        reason = None
        try:
            async with asyncio.timeout(timeout):
                await process.wait()
        except TimeoutError:
            reason = f"not done within {timeout:g} s"
        finally:
            await end_group(process)
        status = process.returncode or 0
        completed = Completed(argv=words, returncode=status, stdout=_read(said), stderr=_read(complained))
    if reason is None and status not in accept:
        reason = f"exit status {status}"
    if reason is not None:
        raise CommandError(completed, reason)
    return completed


@contextmanager
def _opened(source: bytes | Path | None) -> Iterator[IO[bytes]]:
    """Open what a command reads."""
    if not isinstance(source, bytes):
        with Path(source or os.devnull).open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as memory:
        memory.write(source)
        memory.seek(0)
        yield memory


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
