"""Works on layers in a process that is killed on the way."""

import asyncio
from multiprocessing.connection import Connection
from pathlib import Path

from services.common.archive.limits import ArchiveLimits
from services.node.filling import LayerFiller
from services.node.layers import LayerId, LayerKind, LayerStore
from tests.support.driver import chunks
from tests.support.killed import Steps

__all__ = ["create_until", "fill_until", "remove_until"]

_DIRECTORIES = ("os.mkdir", "os.rmdir", "os.symlink")


def fill_until(home: Path, layer_id: LayerId, tar: bytes, last: int | None, answer: Connection) -> None:
    """Fill a layer; a target for `run_until`.

    Parameters
    ----------
    home
        The driver's directory.
    layer_id
        The layer; it exists.
    tar
        What it is filled with.
    last
        The step at which the process is killed; None goes to the end.
    answer
        Gets the number of steps if it comes to the end.
    """
    steps = Steps(last, more=_DIRECTORIES)
    layer = LayerStore(home).find(layer_id)
    filler = LayerFiller(limits=ArchiveLimits())
    steps.armed = True
    asyncio.run(filler.fill(layer, chunks(tar)))
    steps.armed = False
    answer.send(steps.count)


def create_until(home: Path, layer_id: LayerId, last: int | None, answer: Connection) -> None:
    """Make a layer that stands on nothing; otherwise as `fill_until`."""
    steps = Steps(last, more=_DIRECTORIES)
    store = LayerStore(home)
    steps.armed = True
    store.create(layer_id, None, LayerKind.IMAGE)
    steps.armed = False
    answer.send(steps.count)


def remove_until(home: Path, layer_id: LayerId, last: int | None, answer: Connection) -> None:
    """Remove a layer; otherwise as `fill_until`."""
    steps = Steps(last, more=_DIRECTORIES)
    store = LayerStore(home)
    steps.armed = True
    store.remove(layer_id)
    steps.armed = False
    answer.send(steps.count)
