"""What the publisher relies on: a batch is a revision, revisions rise, nobody writes at the same time."""

import asyncio
import os
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.common.digest import Digest
from services.common.layout import LayerLayout, layer_home
from services.repository.errors import ForeignTransactionError, LayerAdditionError, LayerRefusedError, RepositoryError
from services.repository.interface import ListedLayer, Publication
from services.repository.native.access import RepositoryAccess
from services.repository.native.errors import BrokenRepositoryError, RepositoryBusyError
from services.repository.native.records import MANIFEST, REFLOG, RefKind
from services.repository.native.removal import remove_layers
from services.repository.native.tags import Tags
from services.repository.native.writer import worker
from services.repository.native.writer.history import TagName
from services.repository.native.writer.reflog import ReferenceLog
from services.repository.native.writer.state import LocalState
from tests.support.native import NATIVE_NAME, NativeSite, layer_entries, publish
from tests.support.publisher import make_layer, verified

_WORKER = worker.__name__.encode()
"""The program that workers run."""


def _data_objects(site: NativeSite) -> set[str]:
    """What content there is: objects of files and chunks."""
    return {stored.path for stored in site.storage.list("data/") if stored.path[-1] in "0123456789abcdefP"}


async def test_a_batch_is_one_revision(site: NativeSite, tmp_path: Path) -> None:
    archives = [make_layer(tmp_path, str(number)) for number in range(5)]
    async with site.opened() as repository:
        assert await repository.lookup(archives[0].digest) is None
        before = site.revision()
        assert await publish(repository, *archives) == before + 1 == site.revision()
        for archive in archives:
            assert await repository.lookup(archive.digest) == Publication(revision=before + 1)
        assert await publish(repository, make_layer(tmp_path, "one more")) == before + 2
    async with site.opened() as repository:
        assert await repository.lookup(archives[0].digest) == Publication(revision=before + 1)
        with pytest.raises(LayerAdditionError, match="is there already"):
            await publish(repository, archives[0])
    assert site.problems() == []


async def test_layers_are_found_by_both_their_paths(site: NativeSite, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    async with site.opened() as repository:
        await publish(repository, archive)
        shards = [await repository.list_layers(f"{shard:02x}") for shard in range(256)]
    assert [layer for shard in shards for layer in shard] == [
        ListedLayer(digest=archive.digest, whole=True, linked=True)
    ]


async def test_the_ducc_layout_has_no_links_at_the_root(site: NativeSite, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    site = replace(site, layout=LayerLayout.DUCC)
    async with site.opened() as repository:
        await publish(repository, archive)
    with site.newest() as revision:
        assert [entry.name for entry in revision.list(b"")] == [b".layers"]
        assert layer_entries(revision, archive.digest)[b"name"].size == len("one")
    assert site.problems() == []


async def test_the_same_layer_is_the_same_catalog_wherever_it_is_published(site: NativeSite, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one", {"a": "a", "b/c": "c"})
    other = NativeSite(root=tmp_path / "other", state=tmp_path / "other-state", keys=site.keys)
    other.create()
    for each in (site, other):
        async with each.opened() as repository:
            await publish(repository, archive)
    home = b"/" + layer_home(archive.digest).encode()
    with site.newest() as one, other.newest() as two:
        assert one.catalog_of(home).hash == two.catalog_of(home).hash


async def test_known_content_is_neither_compressed_nor_written_again(site: NativeSite, tmp_path: Path) -> None:
    content = {"one": os.urandom(10_000), "large": os.urandom(5 << 20)}
    async with site.opened() as repository:
        await publish(repository, make_layer(tmp_path, "first", content))
        before = {path: (site.root / path).stat().st_mtime_ns for path in _data_objects(site)}
        again = {f"elsewhere/{name}": data for name, data in content.items()}
        await publish(repository, make_layer(tmp_path, "second", again))
    after = {path: (site.root / path).stat().st_mtime_ns for path in _data_objects(site)}
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 2  # the second sidecar, and the headers of the second archive
    assert site.problems() == []


async def test_an_object_that_is_gone_is_made_again(site: NativeSite, tmp_path: Path) -> None:
    async with site.opened() as repository:
        await publish(repository, make_layer(tmp_path, "first", {"file": "the content"}))
        for path in _data_objects(site):
            (site.root / path).unlink()
        second = make_layer(tmp_path, "second", {"other": "the content"})
        await publish(repository, second)
    with site.newest() as revision:
        entry = layer_entries(revision, second.digest)[b"other"]
        assert b"".join(revision.content(entry)) == b"the content"


def _remove(index: Path) -> None:
    index.unlink()


def _replace(index: Path) -> None:
    index.write_bytes(b"no database at all")


def _damage_pages(index: Path) -> None:
    """Overwrite all but what an opening looks at, and what has not got from the log to the file yet."""
    for file in (index, index.with_name("index.sqlite-wal")):
        if file.exists():
            with file.open("r+b") as opened:
                opened.seek(min(4096, file.stat().st_size))
                opened.write(os.urandom(max(0, file.stat().st_size - 4096)))


_LOSS = "the index of content was lost or damaged and is started anew: known content is compressed once more"


@pytest.mark.parametrize("damage", [_remove, _replace, _damage_pages])
async def test_the_index_may_be_lost_or_damaged(
    site: NativeSite, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    files = {f"file{number}": f"content {number}" for number in range(300)}
    async with site.opened() as repository:
        await publish(repository, make_layer(tmp_path, "first", files))
    damage(site.state / "index.sqlite")
    with capture_logs() as logs:
        async with site.opened() as repository:
            second = make_layer(tmp_path, "second", {f"other-{name}": content for name, content in files.items()})
            await publish(repository, second)
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [_LOSS]
    assert site.problems() == []
    with site.newest() as revision:
        entry = layer_entries(revision, second.digest)[b"other-file7"]
        assert b"".join(revision.content(entry)) == b"content 7"


async def test_the_index_may_be_damaged_while_the_publisher_runs(site: NativeSite, tmp_path: Path) -> None:
    files = {f"file{number}": f"content {number}" for number in range(300)}
    with capture_logs() as logs:
        async with site.opened() as repository:
            await publish(repository, make_layer(tmp_path, "first", files))
            _damage_pages(site.state / "index.sqlite")
            for name in ("second", "third"):
                await publish(repository, make_layer(tmp_path, name, {f"{name}-{file}": files[file] for file in files}))
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [_LOSS]
    assert site.problems() == []


async def test_what_is_not_published_is_not_there(site: NativeSite, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    before = (site.root / MANIFEST).read_bytes()
    async with site.opened() as repository:
        prepared = await repository.prepare(verified(archive))
        async with repository.transaction("token") as transaction:
            await transaction.add(prepared)
        assert await repository.lookup(archive.digest) is None
        assert (site.root / MANIFEST).read_bytes() == before
        async with repository.transaction("token") as transaction:
            await transaction.add(prepared)
            await transaction.publish()
        assert await repository.lookup(archive.digest) is not None
    assert site.problems() == []


async def test_a_layer_that_cannot_be_added_leaves_its_neighbours(site: NativeSite, tmp_path: Path) -> None:
    one, two = make_layer(tmp_path, "one"), make_layer(tmp_path, "two")
    async with site.opened() as repository:
        await publish(repository, one)
        prepared = [await repository.prepare(verified(archive)) for archive in (one, two)]
        async with repository.transaction("token") as transaction:
            with pytest.raises(LayerAdditionError):
                await transaction.add(prepared[0])
            await transaction.add(prepared[1])
            await transaction.publish()
        assert await repository.lookup(two.digest) is not None
    assert site.problems() == []


async def test_a_refused_layer_leaves_the_publisher_as_it_was(site: NativeSite, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one", {str(number): os.urandom(1000) for number in range(50)})
    wrong = replace(verified(archive), diff_id=Digest("0" * 64))
    async with site.opened() as repository:
        for _ in range(10):  # more often than there are trays
            with pytest.raises(LayerRefusedError, match="the archive has the diff ID"):
                await repository.prepare(wrong)
        await publish(repository, archive)
    assert site.problems() == []


async def test_two_writers_take_turns(site: NativeSite, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    other = replace(site, state=tmp_path / "other-state")
    async with site.opened() as one, other.opened() as two:
        prepared = await one.prepare(verified(archive))
        async with two.transaction("two"):
            with pytest.raises(ForeignTransactionError, match="another process writes"):
                async with one.transaction("one"):
                    raise AssertionError("both have a transaction open")
        async with one.transaction("one") as transaction:
            await transaction.add(prepared)
            await transaction.publish()
        await publish(two, make_layer(tmp_path, "two"))
        assert await two.lookup(archive.digest) is not None
    assert site.problems() == []


async def test_a_layer_that_somebody_else_has_published_is_not_added_twice(site: NativeSite, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    other = replace(site, state=tmp_path / "other-state")
    async with site.opened() as one, other.opened() as two:
        await publish(one, archive)
        assert await two.lookup(archive.digest) == Publication(revision=None)
        with pytest.raises(LayerAdditionError):
            await publish(two, archive)


def _time(site: NativeSite) -> int:
    with site.reader() as reader:
        published = reader.head().manifest.published
    assert published is not None
    return published


class _Clock:
    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return _NOON + self.offset


_NOON = 1_795_521_600.0


async def test_what_others_add_to_the_reference_log_stays_in_it(site: NativeSite, tmp_path: Path) -> None:
    """It is not read before every publish."""
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)
    async with site.opened() as repository:
        for number in range(3):
            await publish(repository, make_layer(tmp_path, f"layer {number}"))
            await asyncio.to_thread(Tags(access).add, TagName(f"tag-{number}"), description="", revision=None)
    references = ReferenceLog().read(site.storage.read(REFLOG), name=NATIVE_NAME)
    # Of creation, three layers, and three tags, of which each brings a tag database only.
    assert Counter(reference.kind for reference in references) == {
        RefKind.CATALOG: 4,
        RefKind.HISTORY: 7,
        RefKind.CERTIFICATE: 1,
        RefKind.META: 1,
    }
    assert site.problems() == []


async def test_time_never_goes_back_whatever_the_clock_does(site: NativeSite, tmp_path: Path) -> None:
    clock = _Clock()
    site = replace(site, clock=clock)
    seen: list[tuple[int, int]] = []
    async with site.opened() as repository:
        for step, offset in enumerate((0, 0, -3600, -5 * 365 * 86400, 10, 86400)):
            clock.offset = offset
            await publish(repository, make_layer(tmp_path, str(step)))
            seen.append((site.revision(), _time(site)))
    for before, after in pairwise(seen):
        assert after[0] == before[0] + 1
        assert after[1] >= before[1]


async def test_revisions_rise_across_a_restored_backup(site: NativeSite, tmp_path: Path) -> None:
    async with site.opened() as repository:
        await publish(repository, make_layer(tmp_path, "one"))
    shutil.copytree(site.root, tmp_path / "backup")
    async with site.opened() as repository:
        for number in range(3):
            last = await publish(repository, make_layer(tmp_path, f"lost {number}"))
    before = _time(site)
    shutil.rmtree(site.root)
    (tmp_path / "backup").rename(site.root)
    async with site.opened() as repository:
        assert await publish(repository, make_layer(tmp_path, "two")) == last + 1
    assert _time(site) >= before
    assert site.problems() == []


async def test_a_directory_without_a_repository_is_refused(site: NativeSite, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BrokenRepositoryError, match="create a repository there"):
        async with replace(site, root=tmp_path / "empty").opened():
            raise AssertionError("there is none")


async def test_a_worker_that_is_killed_fails_one_layer_and_is_replaced(site: NativeSite, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    async with site.opened() as repository:
        workers = _workers()
        assert workers
        for process in workers:
            os.kill(process, signal.SIGKILL)
        with pytest.raises(RepositoryError, match="ended with status -9"):
            await repository.prepare(verified(archive))
        await publish(repository, archive)
    assert site.problems() == []


def _workers() -> list[int]:
    """The worker processes of this one, which has the servers of other tests for children as well."""
    files = Path("/proc/self/task").glob("*/children")
    children = [child for file in files for child in file.read_text().split()]
    return [int(child) for child in children if _WORKER in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")]


async def test_layers_come_and_go(site: NativeSite, tmp_path: Path) -> None:
    async with site.opened() as repository:
        for number in range(30):
            await publish(repository, *(make_layer(tmp_path, f"{number}.{part}") for part in range(2)))
    assert site.problems() == []
    with closing(sqlite3.connect(site.state / "state.sqlite")) as state:
        assert state.execute("SELECT count(*), count(DISTINCT revision) FROM layers").fetchone() == (60, 30)


async def test_a_second_publisher_with_the_same_state_is_refused_before_it_empties_anything(
    site: NativeSite, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    async with site.opened() as repository:
        under_way = site.state / "tmp" / "under way"
        under_way.write_bytes(b"of a layer")
        with pytest.raises(RepositoryBusyError, match=f"stop it first .process {os.getpid()} on "):
            async with replace(site, root=tmp_path / "another one").opened():
                pass
        assert under_way.read_bytes() == b"of a layer"
        await publish(repository, archive)
    async with site.opened() as repository:
        assert not under_way.exists()
        assert await repository.lookup(archive.digest) is not None


async def test_quick_revisions_are_not_dated_into_the_future_and_time_never_goes_back(
    site: NativeSite, tmp_path: Path
) -> None:
    with site.reader() as reader:
        now = reader.head().manifest.published
    assert now is not None
    clock = [float(now)]
    site = replace(site, clock=lambda: clock[0])
    archives = [make_layer(tmp_path, str(number)) for number in range(6)]
    dated: list[tuple[int, int | None]] = []
    for archive, step in zip(archives, (0, 0, 0, 0.9, -100, 60), strict=True):
        clock[0] += step
        async with site.opened() as repository:
            await publish(repository, archive)
        with site.reader() as reader:
            head = reader.head()
            (trunk,) = (tag for tag in reader.tags(head) if tag.name == "trunk")
        assert (trunk.revision, trunk.published) == (head.manifest.revision, head.manifest.published)
        dated.append((head.manifest.revision, head.manifest.published))
    assert dated == [(number, now) for number in range(2, 8)]

    clock[0] = now + 61
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys, clock=site.clock)
    with closing(LocalState(site.state / "state.sqlite")) as state:
        for number, archive in enumerate(archives[:2], start=8):
            removed = remove_layers(access, [archive.digest], state=state)
            assert (removed.revision, removed.published) == (number, now + 61)
    assert site.problems() == []


async def test_a_publisher_goes_on_above_the_head_where_its_own_state_is_damaged(
    site: NativeSite, tmp_path: Path
) -> None:
    one = make_layer(tmp_path, "one")
    async with site.opened() as repository:
        before = await publish(repository, one)
    (site.state / "state.sqlite").write_bytes(b"garbage" * 1000)
    with capture_logs() as logs:
        async with site.opened() as repository:
            assert await repository.lookup(one.digest) == Publication(revision=None)
            assert await publish(repository, make_layer(tmp_path, "two")) == before + 1
    assert [entry["log_level"] for entry in logs if "aside" in entry] == ["error"]
    (site.root / MANIFEST).unlink()
    (site.state / "state.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(BrokenRepositoryError, match=f"has no {MANIFEST}: restore it from a replica or a backup"):
        async with site.opened():
            pass


async def test_a_repository_from_a_backup_goes_on_above_and_not_before_what_clients_have_seen(
    site: NativeSite, tmp_path: Path
) -> None:
    async with site.opened() as repository:
        await publish(repository, make_layer(tmp_path, "one"))
    with closing(LocalState(site.state / "state.sqlite")) as state:
        seen = state.highest()
        state.note(seen._replace(revision=7, published=seen.published + 3600))
    async with site.opened() as repository:
        assert await publish(repository, make_layer(tmp_path, "two")) == 8
    with site.reader() as reader:
        assert reader.head().manifest.published == seen.published + 3600
