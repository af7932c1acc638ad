"""Changes of snapshots in a process that is killed on the way."""

import sqlite3
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from services.snapshotter.store.model import Kind, Usage
from services.snapshotter.store.store import SnapshotStore
from tests.support.killed import Steps

__all__ = ["CHANGES", "LINKED", "OPENING", "change_until"]

_DIRECTORIES: Final = ("os.mkdir", "os.rmdir", "os.symlink", "os.chmod", "os.chown")
OPENING: Final = "open"
LINKED: Final = Path("/cvmfs/test.example.org/layer")
"""A directory outside that has a link."""

CHANGES: Final[Mapping[str, Callable[[SnapshotStore], object]]] = {
    "prepare": lambda store: store.create(store.reserve(), "new", "name of base", Kind.ACTIVE, {"label": "x"}, None),
    "view": lambda store: store.create(store.reserve(), "new", "name of base", Kind.VIEW, {}, None),
    "commit": lambda store: store.records.commit("name", "active", {"label": "x"}),
    "remove": lambda store: store.remove("active"),
    "update": lambda store: store.records.update("name of base", lambda _: {"label": "x"}),
    "usage": lambda store: store.records.note_usage(1, Usage(1, 1)),
    "link": lambda store: store.lower(Path("/cvmfs/test.example.org/another")),
    "unlink": lambda store: store.keep_links(lambda _: False),
    "clean up": lambda store: store.empty_trash(),
    OPENING: lambda _: None,
}
"""What is done to a store once it is open."""


def change_until(state: Path, name: str, last: int | None, answer: Connection) -> None:
    """Open a store and change it, which is killed; a target for `run_until`.

    Parameters
    ----------
    state
        Its directory.
    name
        The change.
    last
        The step at which the process is killed; None goes to the end.
    answer
        Gets the number of steps if it comes to the end.
    """
    steps = Steps(last, more=_DIRECTORIES)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401 - SQLite's
        connection = sqlite3.Connection(*arguments, **options)
        # What SQLite writes, it writes between two statements.
        connection.set_trace_callback(lambda _statement: steps.step())
        return connection

    steps.armed = name == OPENING
    with patch.object(sqlite3, "connect", connect):
        store = SnapshotStore(state)
    steps.armed = True
    CHANGES[name](store)
    store.records.sync()
    steps.armed = False
    answer.send(steps.count)
