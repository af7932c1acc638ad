"""Commands that a program of the harness runs to their end."""

import asyncio
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    timeout: float = 120,  # noqa: ASYNC109 - a time-out is the point
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
        Seconds after which the command is killed.
    accept
        Exit statuses that are no failure.

    Raises
    ------
    CommandError
        It ended with another status, or not within the time.
    """
    words = tuple(os.fspath(word) for word in argv)
    source = input.open("rb") if isinstance(input, Path) else None
    sink = output.open("wb") if output else None
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=source or (asyncio.subprocess.DEVNULL if input is None else asyncio.subprocess.PIPE),
            stdout=sink or asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
    finally:
        for file in filter(None, (source, sink)):
            file.close()
    content = input if isinstance(input, bytes) else None
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(content)
    except TimeoutError:
        completed = Completed(argv=words, returncode=-9, stdout=b"", stderr=b"")
        raise CommandError(completed, f"not done within {timeout:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    completed = Completed(argv=words, returncode=process.returncode or 0, stdout=stdout or b"", stderr=stderr)
    if completed.returncode not in accept:
        raise CommandError(completed, f"exit status {completed.returncode}")
    return completed
