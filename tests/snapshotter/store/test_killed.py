"""A kill at any step of a change leaves what was before it or what is after it, and whoever comes next goes on."""

import itertools
import os
import shutil
import signal
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from services.snapshotter.store.model import Kind
from services.snapshotter.store.store import SnapshotStore
from tests.support.killed import run_until
from tests.support.store_killed import CHANGES, LINKED, OPENING, change_until


def _make(state: Path) -> None:
    """Make a store that has some of everything, and what earlier kills have left."""
    store = SnapshotStore(state)
    for key, kind in (("base", Kind.ACTIVE), ("active", Kind.ACTIVE), ("view", Kind.VIEW), ("gone", Kind.ACTIVE)):
        snapshot = store.create(store.reserve(), key, "" if key == "base" else "name of base", kind, {"a": "b"}, None)
        (store.diff(snapshot) / "file").write_text(key)
        if key == "base":
            store.records.commit("name of base", key, {})
    store.remove("gone")
    store.lower(LINKED)
    store.close()
    (state / "reserve").unlink()
    (state / "l/zz").mkdir()
    (state / "work/zz").mkdir()


def _shown(store: SnapshotStore) -> Mapping[str, Any]:
    """Return all that a store tells of its snapshots, and check that it is whole."""
    snapshots = store.records.all()
    links = store.records.links()
    names = {path.name for path in (store.root / "l").iterdir()}
    assert {path.name for path in map(store.diff, snapshots)} == {name for name in names if not name.startswith("_")}
    active = {store.work(one).name for one in snapshots if one.kind is Kind.ACTIVE}
    works = {path.name for path in (store.root / "work").iterdir()}
    assert active <= works <= {path.name for path in map(store.diff, snapshots)}
    found: dict[str, Any] = {}
    for one in snapshots:
        files = {path.name: path.read_text() for path in store.diff(one).iterdir()}
        status = store.diff(one).stat()
        usage = store.records.usage(one.number)
        found[one.name] = (one.kind, one.parent, dict(one.labels), files, status.st_mode, usage)
    return found | {"links": set(links)}


@pytest.mark.parametrize("change", CHANGES)
def test_a_kill_at_any_step(tmp_path: Path, processes: ForkServerContext, change: str) -> None:
    template = tmp_path / "template"
    _make(template)
    shutil.copytree(template, tmp_path / "before", symlinks=True)
    store = SnapshotStore(tmp_path / "before")
    before = _shown(store)
    CHANGES[change](store)
    after = _shown(store)
    store.close()
    outcomes = []
    for last in itertools.count(1):
        state = tmp_path / f"killed-{last}"
        shutil.copytree(template, state, symlinks=True)
        status, _ = run_until(processes, change_until, state, change, last)
        store = SnapshotStore(state)
        found = _shown(store)
        assert found in (before, after)
        outcomes.append(found == after)
        if found != after:
            CHANGES[change](store)
        assert _shown(store) == after
        for target in (LINKED, *map(Path, after["links"])):
            assert Path(store.lower(target)).readlink() == target
        store.empty_trash()
        assert os.listdir(state / "trash") == []
        store.close()
        shutil.rmtree(state)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert len(outcomes) > 1
    # Once it has been made, it stays.
    assert outcomes == sorted(outcomes)
    assert outcomes[-1]
    assert change == OPENING or before == after or not outcomes[0]
