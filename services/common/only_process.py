"""One process at a time for one directory of state."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from services.common.errors import SuiteError

__all__ = ["StateInUseError", "only_process"]


class StateInUseError(SuiteError):
    """Another process uses a directory of state, or it cannot be used."""


@contextlib.contextmanager
def only_process(state: Path, *, setting: str) -> Iterator[None]:
    """Keep other processes of a program from the same state, of which each would know a part only.

    Parameters
    ----------
    state
        The directory; made where it is missing.
    setting
        The setting that names it, for messages.

    Raises
    ------
    StateInUseError
        There is one already, or the directory cannot be made.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateInUseError(f"cannot use {state}: {error.strerror}: set {setting}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StateInUseError(f"another process uses {state}: stop it, or set {setting}") from None
    finally:
        os.close(descriptor)
