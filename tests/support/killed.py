"""Work in a process that is killed on the way, at a step that is counted: every change of a file."""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from typing import Any, Final, TypeVar

__all__ = ["Steps", "kill_at", "run_until", "states_of_kills"]

_State = TypeVar("_State")
_CHANGES: Final = ("os.rename", "os.remove", "os.link", "os.truncate")
_MORE: Final = 100
"""Steps that a run may have more than the one in which they were counted, and more."""
_OPENED: Final = os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY
"""To be written, or, of directories, to be brought to the disk."""


class Steps:
    """Counts changes of files, as the interpreter announces them before they are made.

    Parameters
    ----------
    last
        The step at which the process is killed; None for none.
    more
        Kinds of changes that count as well, by the names that the interpreter gives them.
    """

    def __init__(self, last: int | None, *, more: tuple[str, ...] = ()) -> None:
        self.last = last
        self._changes = (*_CHANGES, *more)
        self.count = 0
        self.armed = False
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self._changes or (event == "open" and arguments[2] & _OPENED):
            self.step()

    def step(self) -> None:
        """Count a step, also of another kind."""
        if not self.armed:
            return
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def run_until(
    processes: ForkServerContext, target: Callable[..., None], *arguments: object
) -> tuple[int | None, int | None]:
    """Run work in a process; return its status and how many steps there were, if it came to the end.

    Parameters
    ----------
    processes
        Starts the process.
    target
        The work; its last argument is the end of a pipe that it sends the number of steps to.
    arguments
        The others.
    """
    answer, answers = processes.Pipe(duplex=False)
    process = processes.Process(target=target, args=(*arguments, answers))
    process.start()
    answers.close()
    process.join(300)
    try:
        return process.exitcode, answer.recv()
    except EOFError:
        return process.exitcode, None
    finally:
        answer.close()


def kill_at(processes: ForkServerContext, step: int, target: Callable[..., None], *arguments: object) -> None:
    """Kill work at a step, or let it come to its end before that step.

    What is done side by side takes a step more or less than when the steps were counted.

    Parameters
    ----------
    processes
        Starts the process.
    step
        The step.
    target
        The work, as for `run_until`; the argument before its last one is the step.
    arguments
        The others.
    """
    status, done = run_until(processes, target, *arguments, step)
    assert status == -signal.SIGKILL or (status == 0 and done is not None and done < step)


def states_of_kills(killed: Callable[[int], _State], steps: Iterable[int], *, after: _State) -> set[_State]:
    """Return the states that kills at steps have left, and go on until one has left the state of after the work.

    What is done side by side takes a step more or less than when the steps were counted, so that the last of them may
    still come before the end.

    Parameters
    ----------
    killed
        Kills the work at a step, and returns the state that it finds.
    steps
        The steps, rising.
    after
        What the work leaves if it comes to the end.
    """
    chosen = list(steps)
    with ThreadPoolExecutor(2) as threads:
        states = set(threads.map(killed, chosen))
    for beyond in range(chosen[-1] + 1, chosen[-1] + _MORE):
        if after in states:
            break
        states.add(killed(beyond))
    return states
