"""Publishing, removing and collecting, again and again: what is kept stays whole, and nothing else stays.

`SOAK_PUBLISHES=2000` in the environment is the long form; it takes about a quarter of an hour.
"""

import hashlib
import os
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.removal import remove_layers
from services.repository.native.tags import Tags
from services.repository.native.writer.history import TagName
from services.repository.native.writer.index import ContentIndex
from services.repository.native.writer.state import LocalState
from tests.support.native import NATIVE_NAME, NativeSite, publish, tar_archive
from tests.support.native_revisions import Clock
from tests.support.tars import archive, member

PUBLISHES: Final = int(os.environ.get("SOAK_PUBLISHES", "40"))
EVERY: Final = 10
"""Publishes between two collections."""
KEPT: Final = 3
"""Revisions that a collection keeps."""


def make(directory: Path, rng: random.Random, number: int) -> LayerArchive:
    """Make a layer that shares some of its content with others."""
    files = [member(b"own", b"layer %d" % number)]
    for shared in rng.sample(range(50), 5):
        content = hashlib.shake_128(b"%d" % shared).digest(2000)
        files.append(member(b"shared-%d" % shared, content))
    return tar_archive(directory, archive(*files))


def collect(access: RepositoryAccess, site: NativeSite, clock: Clock) -> int:
    """Collect; return how many objects were deleted."""
    index = ContentIndex(site.state / "index.sqlite")
    try:
        collector = Collector(
            access=access,
            retention=Retention(revisions=KEPT, days=0),
            forget=index.forget,
            patience=10,
            clock=clock,
        )
        return collector.collect().objects
    finally:
        index.close()


def remove(access: RepositoryAccess, site: NativeSite, digests: Sequence[Digest]) -> None:
    state = LocalState(site.state / "state.sqlite")
    try:
        remove_layers(access, digests, state=state)
    finally:
        state.close()


def files(site: NativeSite) -> set[str]:
    return {found.path for found in site.storage.list("data/") if "/txn/" not in found.path}


async def test_many_publishes_with_collections(site: NativeSite, tmp_path: Path) -> None:
    rng = random.Random(20261124)  # noqa: S311 - the same layers each time
    clock = Clock(time.time() + 365 * 86400)  # so that every file is old to the collector
    site = replace(site, clock=clock)
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys, clock=clock)
    there: list[Digest] = []
    numbers: list[tuple[int, int]] = []
    deleted = 0
    async with site.opened() as repository:
        for number in range(PUBLISHES):
            clock.now += 2 * 3600
            made = make(tmp_path, rng, number)
            await publish(repository, made)
            made.path.unlink()
            there.append(made.digest)
            head = access.verify()
            numbers.append((head.revision, head.published))
            if number == 7:
                Tags(access).add(TagName("seven"), description="", revision=None)
            if len(there) > 12:
                gone, there = there[:4], there[4:]
                remove(access, site, gone)
            if number % EVERY == EVERY - 1:
                deleted += collect(access, site, clock)
                assert [digest for digest in there if await repository.lookup(digest) is None] == []
    clock.now += 2 * 3600
    Tags(access).remove([TagName("seven")])
    deleted += collect(access, site, clock)
    assert deleted > 5 * PUBLISHES  # every revision has catalogs and a tag database of its own, for one thing
    assert site.problems() == []
    assert numbers == sorted(set(numbers), key=lambda pair: pair[0])
    assert [published for _, published in numbers] == sorted({published for _, published in numbers})
    # What is there is what the kept revisions reach: another collection finds nothing, and the checker nothing missing.
    before = files(site)
    assert collect(access, site, clock) == 0
    assert files(site) == before
