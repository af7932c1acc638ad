"""A kill at any step of what is done to a layer leaves a whole layer or none, and whoever comes next goes on."""

import itertools
import os
import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from services.node.layers import LayerId, LayerKind, LayerStore
from tests.support.driver import contents, tar_of
from tests.support.killed import run_until
from tests.support.node_killed import create_until, fill_until, remove_until

LAYER = LayerId("a")
NEW = {"directory/file": "new", "other": "new too"}


def _nothing_left(home: Path) -> bool:
    layers = os.listdir(home / "layers")
    return (
        os.listdir(home / "trash") == []
        and all(name == LAYER for name in layers)
        and all(sorted(os.listdir(home / "layers" / name)) == ["diff", "record.json", "work"] for name in layers)
    )


@pytest.mark.parametrize("old", [{}, {"directory/file": "old", "gone/file": "old"}])
def test_filling_a_layer(home: Path, processes: ForkServerContext, old: dict[str, str]) -> None:
    outcomes = set()
    for last in itertools.count(1):
        layer = LayerStore(home).create(LAYER, None, LayerKind.IMAGE)
        for name, content in old.items():
            (layer.diff / name).parent.mkdir(exist_ok=True)
            (layer.diff / name).write_text(content)
        status, steps = run_until(processes, fill_until, home, LAYER, tar_of(dict(NEW)), last)
        store = LayerStore(home)
        found = contents(store.find(LAYER).diff)
        assert found in (old, NEW)
        assert _nothing_left(home)
        outcomes.add(found == NEW)
        if status == -signal.SIGKILL:
            again, _ = run_until(processes, fill_until, home, LAYER, tar_of(dict(NEW)), None)
            assert again == 0
            assert contents(layer.diff) == NEW
        store.remove(LAYER)
        if status == 0:
            break
    assert steps is not None
    assert steps == last - 1 > 5
    # Where the layer was empty, nothing is left to be done after the last step.
    assert outcomes == {True, False}


def test_making_a_layer(home: Path, processes: ForkServerContext) -> None:
    for last in itertools.count(1):
        status, _ = run_until(processes, create_until, home, LAYER, last)
        store = LayerStore(home)
        if store.exists(LAYER):
            assert store.find(LAYER).kind is LayerKind.IMAGE
            store.remove(LAYER)
        assert _nothing_left(home)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert last > 5


def test_removing_a_layer(home: Path, processes: ForkServerContext) -> None:
    for last in itertools.count(1):
        layer = LayerStore(home).create(LAYER, None, LayerKind.IMAGE)
        (layer.diff / "directory").mkdir()
        (layer.diff / "directory/file").touch()
        status, _ = run_until(processes, remove_until, home, LAYER, last)
        store = LayerStore(home)
        assert _nothing_left(home)
        if store.exists(LAYER):
            assert contents(store.find(LAYER).diff) == {"directory/file": ""}
            store.remove(LAYER)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert last > 4
