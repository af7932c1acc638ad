"""SQLite files that are being opened: what is left open of them, and cancelling whoever opens one."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

__all__ = ["cancel_opening", "open_below"]


def open_below(directory: Path) -> list[str]:
    """Return the files in a directory that this process has open."""
    links = (entry.path for entry in os.scandir("/proc/self/fd") if entry.is_symlink())
    return [target for target in map(os.readlink, links) if target.startswith(f"{directory}/")]


async def cancel_opening(
    opening: Callable[[], Coroutine[Any, Any, object]], *, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancel whoever opens a file in the middle of a statement that begins so, or of `connect`.

    What is under way in a thread then goes on.
    """
    begun, go_on = threading.Event(), threading.Event()
    real = sqlite3.connect

    def hold(step: str) -> None:
        if step.lstrip().startswith(at):
            begun.set()
            assert go_on.wait(300)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401 - SQLite's
        connection: sqlite3.Connection = real(*arguments, **options)
        connection.set_trace_callback(hold)
        hold("connect")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect)
        task = asyncio.create_task(opening())
        assert await asyncio.to_thread(begun.wait, 300)
        task.cancel()
        await asyncio.sleep(0)  # it is told before the thread goes on
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
