"""A publisher that is killed at any change of any file leaves the old revision or the new one."""

import asyncio
import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from services.common.archive.model import LayerArchive
from services.repository.native.records import MANIFEST, REFLOG
from services.repository.native.trust.keyring import KeyFiles
from tests.repository.native.conftest import place_in
from tests.support.images import change, documents
from tests.support.killed import kill_at, run_until, states_of_kills
from tests.support.native import NativeSite, layer_entries, publish
from tests.support.native_killed import change_until, create_until, publish_until
from tests.support.publisher import make_layer
from tests.support.stock_rules import faults_of_reflog

_ONE, _TWO, _NEW = "quay.io/ns/one:v1", "quay.io/ns/two:v1", "localhost:5000/new:v1"
_SPARSE, _LAST = 20, 8
"""Of the steps of a batch of images, every so many are looked at, and the last ones."""


@pytest.fixture
def tmp_path(memory: Path) -> Iterator[Path]:
    """In memory."""
    with place_in(memory) as place:
        yield place


def _copy(site: NativeSite, to: Path) -> NativeSite:
    shutil.copytree(site.root, to / "repository")
    shutil.copytree(site.state, to / "state")
    return dataclasses.replace(site, root=to / "repository", state=to / "state")


def faults(site: NativeSite) -> list[str]:
    """Say what the stock checker would find fault with in the reference log."""
    return faults_of_reflog(lambda name: (site.root / name).read_bytes() if (site.root / name).exists() else None)


async def _recover(site: NativeSite, archives: Sequence[LayerArchive]) -> None:
    """Go on as the next publisher does, and look at what it found and at what it made."""
    async with site.opened() as repository:
        assert (site.root / REFLOG).exists()
        assert faults(site) == []
        assert site.problems() == []
        missing = [archive for archive in archives if await repository.lookup(archive.digest) is None]
        await publish(repository, *missing)
    assert site.problems() == []


def test_a_kill_at_any_step_leaves_the_old_or_the_new_revision(
    site: NativeSite, tmp_path: Path, processes: ForkServerContext
) -> None:
    first = [make_layer(tmp_path, "first", {"kept": "kept"})]
    archives = [make_layer(tmp_path, name, {"name": name, "kept": "kept"}) for name in ("one", "two")]
    assert run_until(processes, publish_until, site, first, None)[0] == 0
    before = site.revision()
    status, steps = run_until(processes, publish_until, _copy(site, tmp_path / "whole"), archives, None)
    assert status == 0
    assert steps is not None

    def killed(step: int) -> int:
        mine = _copy(site, tmp_path / str(step))
        kill_at(processes, step, publish_until, mine, archives)
        assert faults(mine) == []
        revision = mine.revision()
        with mine.newest() as newest:
            there = [archive for archive in archives if newest.stat(b"/" + archive.digest.encode()) is not None]
            assert there == (archives if revision > before else [])
            assert b"kept" in layer_entries(newest, first[0].digest)
        asyncio.run(_recover(mine, archives))
        assert mine.revision() > before
        shutil.rmtree(tmp_path / str(step))
        return revision

    revisions = states_of_kills(killed, range(1, steps + 1), after=before + 1)
    assert revisions == {before, before + 1}, "no kill came before the manifest"


def _seen(site: NativeSite) -> dict[str, bytes]:
    """Read what readers see of images."""
    with site.newest() as newest:
        found = ((name, newest.stat(f"/.metadata/{name}/image.json".encode())) for name in (_ONE, _TWO, _NEW))
        return {name: b"".join(newest.content(entry)) for name, entry in found if entry is not None}


def test_a_kill_leaves_the_old_images_or_the_new_ones(
    site: NativeSite, tmp_path: Path, processes: ForkServerContext
) -> None:
    layers = [make_layer(tmp_path, name, {"name": name}) for name in ("kept", "gone")]
    before, after = {_ONE: b"1", _TWO: b"1"}, {_ONE: b"2", _NEW: b"1"}
    put, gone = [documents(_ONE, "2"), documents(_NEW, "1")], ([_TWO], [layers[1].digest])
    assert run_until(processes, publish_until, site, layers, None)[0] == 0
    old = ([documents(_ONE, "1", "arm64"), documents(_TWO, "1")], ((), ()))
    assert run_until(processes, change_until, site, *old, None)[0] == 0
    whole = _copy(site, tmp_path / "whole")
    status, steps = run_until(processes, change_until, whole, put, gone, None)
    assert (status, _seen(site), _seen(whole)) == (0, before, after)
    assert steps is not None
    # All that matters is at the end; before it, objects are written that nobody names.
    killed_at = sorted({*range(1, steps + 1, _SPARSE), *range(max(1, steps - _LAST), steps + 1)})

    async def recover(mine: NativeSite) -> None:
        async with mine.opened() as repository:
            if _seen(mine) == before:
                await change(repository, put=put, remove=gone[0], remove_layers=gone[1])
            assert await repository.lookup(layers[0].digest) is not None
            assert await repository.lookup(layers[1].digest) is None

    def killed(step: int) -> bool:
        mine = _copy(site, tmp_path / str(step))
        kill_at(processes, step, change_until, mine, put, gone)
        seen = _seen(mine)
        assert seen in (before, after)
        with mine.newest() as newest:
            assert (newest.stat(b"/" + layers[1].digest.encode()) is None) == (seen == after)
        asyncio.run(recover(mine))
        assert _seen(mine) == after
        assert mine.problems() == []
        shutil.rmtree(tmp_path / str(step))
        return seen == after

    assert states_of_kills(killed, killed_at, after=True) == {False, True}


def test_a_creation_that_is_killed_can_be_repeated(
    tmp_path: Path, keys: KeyFiles, processes: ForkServerContext
) -> None:
    def at(step: int | None) -> NativeSite:
        return NativeSite(root=tmp_path / str(step), state=tmp_path / "state", keys=keys)

    status, steps = run_until(processes, create_until, at(None), None)
    assert status == 0
    assert steps is not None

    def killed(step: int) -> None:
        site = at(step)
        kill_at(processes, step, create_until, site)
        assert faults(site) == []
        if not (site.root / MANIFEST).exists():
            site.create()
        assert site.problems() == []
        assert site.revision() == 1

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(killed, range(1, steps + 1)))
