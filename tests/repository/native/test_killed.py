"""A publisher that is killed at any change of any file leaves the old revision or the new one."""

import asyncio
import dataclasses
import shutil
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from services.common.archive.model import LayerArchive
from services.repository.native.records import MANIFEST, REFLOG
from services.repository.native.trust.keyring import KeyFiles
from tests.repository.native.conftest import place_in
from tests.support.killed import run_until
from tests.support.native import NativeSite, layer_entries, publish
from tests.support.native_killed import create_until, publish_until
from tests.support.publisher import make_layer
from tests.support.stock_rules import faults_of_reflog


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
        assert run_until(processes, publish_until, mine, archives, step) == (-signal.SIGKILL, None)
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

    with ThreadPoolExecutor(2) as threads:
        revisions = list(threads.map(killed, range(1, steps + 1)))
    assert set(revisions) == {before, before + 1}, "no kill came before, or none after the manifest"


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
        assert run_until(processes, create_until, site, step) == (-signal.SIGKILL, None)
        assert faults(site) == []
        if not (site.root / MANIFEST).exists():
            site.create()
        assert site.problems() == []
        assert site.revision() == 1

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(killed, range(1, steps + 1)))
