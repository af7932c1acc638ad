"""Garbage collection: what goes, what stays, and what a kill leaves."""

import copy
import dataclasses
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from services.repository.native.access import RepositoryAccess
from services.repository.native.collection import collector as collector_module
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.errors import NativeError, ObjectMissingError, RepositoryBusyError
from services.repository.native.reader.cache import CatalogCache
from services.repository.native.reader.catalog import Catalog, CatalogReference
from services.repository.native.reader.database import Database
from services.repository.native.reader.revision import Revision
from services.repository.native.records import MANIFEST, REFLOG, ContentHash, ObjectKind, RefKind
from services.repository.native.storage.interface import NewObject
from services.repository.native.tags import Tags
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.history import TagName
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.reflog import ReferenceLog
from tests.repository.native.conftest import NAME, place_in
from tests.support.killed import kill_at, run_until
from tests.support.native import NativeSite
from tests.support.native_killed import collect_until
from tests.support.native_revisions import Clock, Revisions, content

HOUR = 3600.0


@pytest.fixture
def clock() -> Clock:
    # Long after the real time, so that every file is old to the collector.
    return Clock(time.time() + 365 * 24 * HOUR)


@pytest.fixture
def tmp_path(memory: Path) -> Iterator[Path]:
    """In memory."""
    with place_in(memory) as place:
        yield place


@pytest.fixture
def made(tmp_path: Path, keys: KeyFiles, clock: Clock) -> Revisions:
    return Revisions.in_directory(tmp_path / "repository", keys, clock)


def collector(made: Revisions, *, revisions: int = 1, days: float = 0, **more: Callable[..., None]) -> Collector:
    return Collector(
        access=made.access,
        retention=Retention(revisions=revisions, days=days),
        forget=more.get("forget", lambda _digests: None),
        patience=0,
        clock=made.clock,
    )


def objects(made: Revisions) -> set[str]:
    """Paths of all objects."""
    return {found.path for found in made.access.storage.list("data/") if "/txn/" not in found.path}


def publish(made: Revisions, *names: str) -> Manifest:
    """Publish a revision of some directories, hours after the last one."""
    made.clock.now += 3 * HOUR
    tree = {name: {"small": content(f"{name}/small", 10), "large": content(name, 2500)} for name in names}
    return made.publish(tree)


def read_all(made: Revisions, root: ContentHash) -> dict[bytes, bytes]:
    """Read every file of a revision."""
    with CatalogCache(made.access.storage) as catalogs:
        revision = Revision(made.access.storage, CatalogReference(b"", root, None), catalogs=catalogs)
        return {entry.path: b"".join(revision.content(entry)) for entry in revision.walk() if entry.is_file}


def test_what_only_old_revisions_hold_goes(made: Revisions) -> None:
    first = publish(made, "a", "b")
    publish(made, "b", "c")
    last = publish(made, "c")
    made.clock.now += 3 * HOUR
    before = objects(made)
    looked = collector(made).look()
    assert objects(made) == before
    done = collector(made).collect()
    assert done == looked
    assert done.kept == (4,)
    assert len(before - objects(made)) == done.objects
    kept = read_all(made, last.root)
    assert kept == {b"/c/small": content("c/small", 10), b"/c/large": content("c", 2500)}
    with pytest.raises(ObjectMissingError):
        read_all(made, first.root)
    for seed, kind in (("a/small", ObjectKind.FILE), ("a", ObjectKind.CHUNK)):
        stored = made.access.compressor.compress(content(seed, 10 if kind is ObjectKind.FILE else 1000))
        assert made.access.compressor.name(stored).path(kind) in before - objects(made)
    assert collector(made).collect().objects == 0


def test_the_manifest_says_what_the_reference_log_is(made: Revisions) -> None:
    publish(made, "a")
    last = publish(made, "b")
    made.clock.now += 3 * HOUR
    collector(made).collect()
    after = made.access.verify()
    log = made.access.storage.read(REFLOG)
    assert after.reflog == ContentHash.of(log)
    assert after.revision == last.revision
    assert after.published == last.published
    named = {(reference.kind, reference.name) for reference in ReferenceLog().read(log, name=NAME)}
    assert {name for kind, name in named if kind is RefKind.CATALOG} >= {after.root}
    for kind, name in named:
        letter = {0: "C", 1: "X", 2: "H", 3: "M"}[kind]
        assert made.access.storage.size(name.path(ObjectKind(letter))) is not None
    status = json.loads(made.access.storage.read(".cvmfs_status.json"))
    assert time.strptime(status["last_gc"], "%a %b %d %H:%M:%S UTC %Y")


def test_what_has_a_tag_stays(made: Revisions) -> None:
    first = publish(made, "a")
    Tags(made.access).add(TagName("keep"), description="", revision=None)
    for name in ("b", "c", "d"):
        publish(made, name)
    made.clock.now += 3 * HOUR
    done = collector(made).collect()
    assert done.tagged == 3  # trunk and trunk-previous among them
    assert set(read_all(made, first.root)) == {b"/a/small", b"/a/large"}
    Tags(made.access).remove([TagName("keep")])
    assert collector(made).collect().objects > 0
    with pytest.raises(ObjectMissingError):
        read_all(made, first.root)


def test_the_newest_revisions_stay(made: Revisions) -> None:
    published = [publish(made, name) for name in "abcdef"]
    made.clock.now += 1000 * HOUR
    assert collector(made, revisions=4).collect().kept == (7, 6, 5, 4)
    for number, manifest in enumerate(published):
        if number >= 2:
            assert len(read_all(made, manifest.root)) == 2
        else:
            with pytest.raises(ObjectMissingError):
                read_all(made, manifest.root)


def test_what_was_the_newest_within_so_many_days_stays(made: Revisions) -> None:
    publish(made, "a")
    publish(made, "b")
    made.clock.now += 48 * HOUR  # b was the newest until here
    publish(made, "c")
    made.clock.now += 3 * HOUR
    assert collector(made, days=1).look().kept == (4, 3)
    assert collector(made, days=2.3).look().kept == (4, 3, 2)


def test_a_revision_that_a_reader_may_still_be_at_stays(made: Revisions) -> None:
    """A client takes minutes to notice a new revision; until then it reads the old one."""
    for name in "abc":
        publish(made, name)
    made.clock.now += 60
    assert collector(made).look().kept == (4, 3)


def test_what_a_killed_publish_has_left_goes(made: Revisions, tmp_path: Path) -> None:
    publish(made, "a")
    orphan = made.access.put(b"nobody names this", ObjectKind.FILE).path(ObjectKind.FILE)
    temporary = tmp_path / "repository/data/txn/0123456789abcdef"
    temporary.write_bytes(b"half an obj")
    strange = tmp_path / "repository/data/00/notes.txt"
    strange.write_bytes(b"whose is this?")
    made.clock.now += 3 * HOUR
    done = collector(made).collect()
    assert orphan not in objects(made)
    assert not temporary.exists()
    assert strange.exists()
    assert done.objects == 2 + done.references


def test_what_has_just_been_written_stays(made: Revisions) -> None:
    publish(made, "a")
    orphan = made.access.put(b"a publish is under way", ObjectKind.FILE).path(ObjectKind.FILE)
    made.clock.now = time.time() + HOUR - 60
    assert collector(made).collect().objects == 0
    assert orphan in objects(made)


def test_whoever_counts_on_objects_is_told_before_they_go(made: Revisions) -> None:
    publish(made, "a")
    publish(made, "b")
    publish(made, "c")
    made.clock.now += 3 * HOUR
    told: set[bytes] = set()

    def forget(digests: Sequence[bytes]) -> None:
        there = objects(made)
        for digest in digests:
            assert any(f"{digest.hex()[:2]}/{digest.hex()[2:]}" in path for path in there)
        told.update(digests)

    before = objects(made)
    collector(made, forget=forget).collect()
    gone = {path.removeprefix("data/").replace("/", "")[:40] for path in before - objects(made)}
    assert gone
    assert {digest.hex() for digest in told} == gone


def test_nothing_is_deleted_while_somebody_uses_objects(made: Revisions) -> None:
    publish(made, "a")
    publish(made, "b")
    publish(made, "c")
    made.clock.now += 3 * HOUR
    before = objects(made)
    with made.access.storage.using(patience=0), pytest.raises(RepositoryBusyError):
        collector(made).collect()
    assert objects(made) == before
    assert collector(made).collect().objects > 0


def between(made: Revisions, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen after the search, before anything is deleted."""
    collecting = made.access.storage.collecting

    def interrupted(*, patience: float) -> AbstractContextManager[None]:
        happens()
        return collecting(patience=patience)

    monkeypatch.setattr(made.access.storage, "collecting", interrupted)


def test_what_is_published_again_meanwhile_stays(made: Revisions, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(made, "a")
    publish(made, "b")
    publish(made, "c")
    made.clock.now += 3 * HOUR
    published: list[Manifest] = []
    between(made, monkeypatch, lambda: published.append(publish(made, "a", "c")))
    done = collector(made).collect()
    assert done.objects
    assert read_all(made, published[0].root)[b"/a/large"] == content("a", 2500)


def test_a_tag_that_is_made_meanwhile_keeps_its_revision(made: Revisions, monkeypatch: pytest.MonkeyPatch) -> None:
    first = publish(made, "a")
    publish(made, "b")
    publish(made, "c")
    made.clock.now += 3 * HOUR
    tag = TagName("just-in-time")
    between(made, monkeypatch, lambda: Tags(made.access).add(tag, description="", revision=2))
    collector(made).collect()
    assert read_all(made, first.root)[b"/a/small"] == content("a/small", 10)


def test_a_publisher_gets_its_turn_during_a_long_collection(made: Revisions, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        publish(made, name)
    made.clock.now += 3 * HOUR
    monkeypatch.setattr(collector_module, "_BATCH", 1)
    monkeypatch.setattr(collector_module, "_TURN", 0.0)
    batches = 0
    entered_at: list[int] = []

    def enter() -> None:
        with made.access.storage.using(patience=30):
            entered_at.append(batches)

    publisher = threading.Thread(target=enter)

    def forget(_digests: Sequence[bytes]) -> None:
        nonlocal batches
        if not batches:
            publisher.start()
        batches += 1

    one = Collector(
        access=made.access,
        retention=Retention(revisions=1, days=0),
        forget=forget,
        patience=30,
        clock=made.clock,
    )
    deleted = one.collect().objects
    publisher.join()
    assert deleted == batches > 5
    assert entered_at[0] < batches


def test_nothing_is_deleted_where_it_is_not_known_what_is_reached(made: Revisions) -> None:
    publish(made, "a")
    publish(made, "b")
    last = publish(made, "c")
    made.clock.now += 3 * HOUR
    with closing(Catalog(Database.load(made.access.storage, last.root, ObjectKind.CATALOG), path=b"")) as catalog:
        (nested,) = catalog.all_nested()
    made.access.storage.delete([nested.hash.path(ObjectKind.CATALOG)])
    before = objects(made)
    with pytest.raises(ObjectMissingError):
        collector(made).collect()
    assert objects(made) == before


def test_a_damaged_revision_that_is_not_kept_goes_with_the_others(made: Revisions) -> None:
    damaged, *_ = [publish(made, name) for name in ("a", "b", "c")]
    made.clock.now += 3 * HOUR
    path = damaged.root.path(ObjectKind.CATALOG)
    made.access.storage.delete([path])
    made.access.storage.put([NewObject(path, b"damaged")])
    done = collector(made, revisions=2).collect()
    assert done.kept == (4, 3)
    assert path not in objects(made)


def test_a_repository_that_promises_never_to_be_collected_is_not(made: Revisions) -> None:
    publish(made, "a")
    with made.access.changing() as manifest:
        never = dataclasses.replace(manifest, garbage_collectable=False)
        made.access.head.replace(never, reflog=made.access.storage.read(REFLOG))
    assert b"\nGno\n" in made.access.storage.read(MANIFEST)
    with pytest.raises(NativeError, match="never collected"):
        collector(made).look()


def test_a_kill_at_any_step_costs_nothing(made: Revisions, tmp_path: Path, processes: ForkServerContext) -> None:
    publish(made, "a", "b")
    publish(made, "b", "c")
    last = publish(made, "c", "d")
    made.clock.now += 3 * HOUR
    whole = read_all(made, last.root)
    previous = made.access.verify()
    keys, now = made.access.keys, made.clock.now

    def another(name: str) -> NativeSite:
        root = tmp_path / name
        shutil.copytree(tmp_path / "repository", root)
        return NativeSite(root=root, state=tmp_path / "state", keys=keys)

    status, steps = run_until(processes, collect_until, another("whole"), now, None)
    assert status == 0
    assert steps is not None
    assert steps > 20

    def killed(step: int) -> None:
        site = another(str(step))
        kill_at(processes, step, collect_until, site, now)
        access = RepositoryAccess.open(name=NAME, storage=site.storage, keys=keys, clock=made.clock)
        mine = copy.copy(made)
        mine.access = access
        # Whatever happened, the head is whole for its readers, and so is what the reference log still names.
        head = access.verify()
        assert (head.root, head.revision) == (previous.root, previous.revision)
        assert read_all(mine, last.root) == whole
        for reference in ReferenceLog().read(site.storage.read(REFLOG), name=NAME):
            if reference.kind is RefKind.CATALOG:
                read_all(mine, reference.name)
        # And anybody can go on.
        collector(mine).collect()
        assert access.verify().reflog == ContentHash.of(site.storage.read(REFLOG))
        assert collector(mine).look().objects == 0
        assert read_all(mine, last.root) == whole
        shutil.rmtree(site.root)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(killed, range(1, steps + 1)))
