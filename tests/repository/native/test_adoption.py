"""The repository that the real server wrote is taken over and published into.

Its private keys were thrown away, so the tests sign its manifest and whitelist with keys of their own; nothing else in
it is changed.
"""

import dataclasses
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.common.archive.model import LayerArchive
from services.common.layout import LayerLayout, layer_tree
from services.common.repository_name import RepositoryName
from services.repository.native.access import RepositoryAccess
from services.repository.native.adoption import adopt_repository
from services.repository.native.check.checker import Checker
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.errors import BrokenRepositoryError, RepositoryExistsError
from services.repository.native.format import FORMAT_FILE, RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.records import MANIFEST, REFLOG, WHITELIST, ContentHash, ObjectKind, RefKind
from services.repository.native.repository import NativeRepository
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import NewObject
from services.repository.native.tags import Tags
from services.repository.native.trust.errors import KeyUnusableError, TrustError
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.trust.renewal import sign_whitelist
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.history import TagName
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.reflog import ReferenceLog
from tests.support.golden import GOLDEN, GOLDEN_NAME, client_view, expected
from tests.support.native import publish, tar_archive
from tests.support.stratum1 import Replica
from tests.support.tars import archive, member
from tests.support.thin_repository import thin_repository

NAME = RepositoryName(GOLDEN_NAME)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFiles:
    files = KeyFiles(tmp_path / "keys", NAME)
    files.complete(now=datetime.now(UTC))
    return files


@pytest.fixture
def storage(tmp_path: Path, keys: KeyFiles) -> DirectoryStorage:
    """The golden repository as it would be if its keys were these."""
    root = tmp_path / "repository"
    shutil.copytree(GOLDEN, root)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    storage = DirectoryStorage(root)
    keyring = keys.load()
    compressor = Compressor(RepositoryFormat(compressor="zlib"))
    stored = compressor.compress(keyring.certificate.encode())
    certificate = compressor.name(stored)
    storage.prepare()
    storage.put([NewObject(certificate.path(ObjectKind.CERTIFICATE), stored)])
    golden = Manifest.parse(storage.read(MANIFEST))
    reflog = ReferenceLog().add(
        storage.read(REFLOG), [(certificate, RefKind.CERTIFICATE)], name=NAME, timestamp=golden.published
    )
    storage.replace(REFLOG, reflog)
    manifest = dataclasses.replace(golden, certificate=certificate, reflog=ContentHash.of(reflog))
    storage.replace(MANIFEST, manifest.encode(keyring.signer))
    master, own = keys.load_master()
    whitelist = sign_whitelist(
        master, own, NAME, algorithm=golden.root.algorithm, validity=timedelta(days=30), now=datetime.now(UTC)
    )
    storage.replace(WHITELIST, whitelist)
    return storage


def check(storage: DirectoryStorage, keys: KeyFiles) -> list[str]:
    checker = Checker(storage, name=NAME, master_keys=[keys.public.read_bytes()])
    return [f"{problem.place}: {problem.what}" for problem in checker.run().problems]


def test_everything_in_it_stays_as_it_is(storage: DirectoryStorage, keys: KeyFiles, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    manifest = adopt_repository(name=NAME, storage=storage, keys=keys)
    assert manifest.revision == 7
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    made = set(after) - set(before)
    assert made == {root / FORMAT_FILE, root / "data/txn/.writer-lock"}
    assert {path: content for path, content in after.items() if path not in made} == before
    assert RepositoryFormat.parse(storage.read(FORMAT_FILE)) == RepositoryFormat(compressor="zlib", hash="sha1")
    with pytest.raises(RepositoryExistsError, match="already"):
        adopt_repository(name=NAME, storage=storage, keys=keys)


def test_its_history_goes_on(storage: DirectoryStorage, keys: KeyFiles) -> None:
    adopt_repository(name=NAME, storage=storage, keys=keys)
    access = RepositoryAccess.open(name=NAME, storage=storage, keys=keys)
    names = [tag.name for tag in Tags(access).list()]
    assert sorted(names) == ["trunk", "trunk-previous", "v1", "v2"]


def test_a_reference_log_that_is_missing_is_made_again(
    storage: DirectoryStorage, keys: KeyFiles, tmp_path: Path
) -> None:
    log = ReferenceLog()
    known = {(entry.kind, entry.name) for entry in log.read(storage.read(REFLOG), name=NAME)}
    (tmp_path / "repository" / REFLOG).unlink()
    adopt_repository(name=NAME, storage=storage, keys=keys)
    made = {(entry.kind, entry.name) for entry in log.read(storage.read(REFLOG), name=NAME)}
    # Only the certificate whose key was thrown away cannot be found again.
    assert [kind for kind, _ in known - made] == [RefKind.CERTIFICATE]
    assert made <= known
    assert check(storage, keys) == []


def test_what_the_stock_collector_leaves_is_put_right(storage: DirectoryStorage, keys: KeyFiles) -> None:
    manifest = Manifest.parse(storage.read(MANIFEST))
    stale = dataclasses.replace(manifest, reflog=ContentHash.of(b"before the collection"))
    storage.replace(MANIFEST, stale.encode(keys.load().signer))
    assert adopt_repository(name=NAME, storage=storage, keys=keys).reflog == ContentHash.of(storage.read(REFLOG))
    assert check(storage, keys) == []


def test_without_its_keys_nothing_happens(storage: DirectoryStorage, keys: KeyFiles) -> None:
    keys.key.unlink()
    with pytest.raises(KeyUnusableError):
        adopt_repository(name=NAME, storage=storage, keys=keys)
    assert storage.size(FORMAT_FILE) is None


def test_somebody_elses_repository_is_not_taken_over(tmp_path: Path, storage: DirectoryStorage) -> None:
    other = KeyFiles(tmp_path / "other", NAME)
    other.complete(now=datetime.now(UTC))
    with pytest.raises(TrustError, match="not to be trusted"):
        adopt_repository(name=NAME, storage=storage, keys=other)
    assert storage.size(FORMAT_FILE) is None


def test_a_damaged_root_catalog_is_found(storage: DirectoryStorage, keys: KeyFiles, tmp_path: Path) -> None:
    manifest = Manifest.parse(storage.read(MANIFEST))
    path = tmp_path / "repository" / manifest.root.path(ObjectKind.CATALOG)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(BrokenRepositoryError, match="has been changed"):
        adopt_repository(name=NAME, storage=storage, keys=keys)


def test_the_command(storage: DirectoryStorage, keys: KeyFiles, tmp_path: Path) -> None:
    place = (NAME, "--directory", tmp_path / "repository", "--keys", keys.key.parent)
    assert thin_repository("import", *place, "--json").document["revision"] == 7
    assert thin_repository("import", *place).status == 1
    assert thin_repository("tag", "add", *place, "taken-over").output == "taken-over is revision 7\n"
    assert storage.size(FORMAT_FILE) is not None


async def publish_into(storage: DirectoryStorage, keys: KeyFiles, state: Path, layer: LayerArchive) -> int:
    with ThreadPoolExecutor(2) as threads:
        repository = NativeRepository(
            name=NAME,
            storage=storage,
            keys=keys,
            state=state,
            layout=LayerLayout.FLAT,
            threads=threads,
            workers=1,
        )
        async with repository:
            await repository.recover(())
            return await publish(repository, layer)


def change_root(storage: DirectoryStorage, keys: KeyFiles, *statements: str) -> None:
    """Make the root catalog as another server would have made it, with no past."""
    compressor = Compressor(RepositoryFormat(compressor="zlib"))
    manifest = Manifest.parse(storage.read(MANIFEST))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(compressor.expand(storage.read(manifest.root.path(ObjectKind.CATALOG))))
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        content = bytes(connection.serialize())
    stored = compressor.compress(content)
    root = compressor.name(stored)
    storage.put([NewObject(root.path(ObjectKind.CATALOG), stored)])
    changed = dataclasses.replace(manifest, root=root, root_size=len(content), history=None)
    storage.replace(MANIFEST, changed.encode(keys.load().signer))
    storage.delete([REFLOG])


def test_a_form_that_is_too_old_is_refused(storage: DirectoryStorage, keys: KeyFiles) -> None:
    change_root(storage, keys, "UPDATE properties SET value = '4' WHERE key = 'schema_revision'")
    with pytest.raises(BrokenRepositoryError, match="schema revision 4"):
        adopt_repository(name=NAME, storage=storage, keys=keys)
    assert storage.size(FORMAT_FILE) is None


def test_tags_of_a_form_that_is_too_old_are_refused(storage: DirectoryStorage, keys: KeyFiles) -> None:
    """At once, and not by every publish that follows."""
    compressor = Compressor(RepositoryFormat(compressor="zlib"))
    manifest = Manifest.parse(storage.read(MANIFEST))
    assert manifest.history is not None
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(compressor.expand(storage.read(manifest.history.path(ObjectKind.HISTORY))))
        connection.execute("UPDATE properties SET value = '2' WHERE key = 'schema_revision'")
        connection.commit()
        stored = compressor.compress(bytes(connection.serialize()))
    history = compressor.name(stored)
    storage.put([NewObject(history.path(ObjectKind.HISTORY), stored)])
    storage.replace(MANIFEST, dataclasses.replace(manifest, history=history).encode(keys.load().signer))
    with pytest.raises(BrokenRepositoryError, match="tag database has the schema_revision '2'"):
        adopt_repository(name=NAME, storage=storage, keys=keys)
    assert storage.size(FORMAT_FILE) is None


@pytest.mark.parametrize(
    "statements",
    [
        # A newer server has brought it to the schema, so that columns are in another order.
        ["ALTER TABLE catalog ADD COLUMN mtimens INTEGER"],
        ["UPDATE properties SET value = '6' WHERE key = 'schema_revision'"],
    ],
    ids=["upgraded", "old"],
)
async def test_an_older_server_may_have_made_it(
    storage: DirectoryStorage, keys: KeyFiles, tmp_path: Path, statements: list[str]
) -> None:
    change_root(storage, keys, "ALTER TABLE catalog DROP COLUMN mtimens", *statements)
    adopt_repository(name=NAME, storage=storage, keys=keys)
    made = tar_archive(tmp_path, archive(member(b"new", b"a new file")))
    assert await publish_into(storage, keys, tmp_path / "state", made) == 8
    assert check(storage, keys) == []
    with RepositoryReader(storage, name=NAME, master_keys=[keys.public.read_bytes()]) as reader:
        newest = reader.newest(reader.head())
        link = newest.stat(f"/{made.digest}".encode())
        assert link is not None
        assert newest.stat(f"/{layer_tree(made.digest)}/new".encode()) is not None
        assert link.is_symlink


async def test_publishing_and_collecting_go_on(storage: DirectoryStorage, keys: KeyFiles, tmp_path: Path) -> None:
    adopt_repository(name=NAME, storage=storage, keys=keys)
    # The content of the empty one is stored already, by the real server.
    made = tar_archive(tmp_path, archive(member(b"new", b"a new file"), member(b"empty", b"")))
    assert await publish_into(storage, keys, tmp_path / "state", made) == 8
    assert check(storage, keys) == []
    with RepositoryReader(storage, name=NAME, master_keys=[keys.public.read_bytes()]) as reader:
        head = reader.head()
        newest = reader.newest(head)
        shown = client_view(newest)
        for path, entry in expected("expected").items():
            if path != b"/":  # has more in it now
                assert shown[path] == entry
        assert newest.stat(f"/{layer_tree(made.digest)}/new".encode()) is not None
        assert client_view(reader.tagged(head, "v1")) == expected("expected-v1")
    access = RepositoryAccess.open(name=NAME, storage=storage, keys=keys)
    collected = Collector(
        access=access,
        retention=Retention(revisions=1, days=0),
        forget=lambda _digests: None,
        patience=10,
        clock=lambda: time.time() + 365 * 86400,
    ).collect()
    assert collected.objects > 0
    assert check(storage, keys) == []
    with RepositoryReader(storage, name=NAME, master_keys=[keys.public.read_bytes()]) as reader:
        assert client_view(reader.tagged(reader.head(), "v1")) == expected("expected-v1")


async def test_predecessors_of_its_nested_catalogs_are_collected(
    storage: DirectoryStorage, keys: KeyFiles, tmp_path: Path
) -> None:
    """The real server names them, which this suite does not; a replica that is up to date never asks for them."""
    adopt_repository(name=NAME, storage=storage, keys=keys)

    def predecessors() -> set[str]:
        with RepositoryReader(storage, name=NAME, master_keys=[keys.public.read_bytes()]) as reader:
            newest = reader.newest(reader.head())
            return {
                ContentHash.parse(newest.properties(place)["previous_revision"]).path(ObjectKind.CATALOG)
                for place in (b"/nested1", b"/dirtab/v0")
            }

    named = predecessors()
    assert storage.missing(list(named)) == []
    replica = Replica(tmp_path / "repository", tmp_path / "replica")
    replica.snapshot()
    access = RepositoryAccess.open(name=NAME, storage=storage, keys=keys)
    Tags(access).remove([TagName("v1"), TagName("v2")])  # the first has them as catalogs of its own
    for seed in (b"one", b"two"):
        await publish_into(storage, keys, tmp_path / "state", tar_archive(tmp_path, archive(member(seed, seed))))
    Collector(
        access=access,
        retention=Retention(revisions=1, days=0),
        forget=lambda _digests: None,
        patience=10,
        clock=lambda: time.time() + 365 * 86400,
    ).collect()
    assert set(storage.missing(list(named))) == named == predecessors()
    assert check(storage, keys) == []
    replica.snapshot()
    anew = Replica(tmp_path / "repository", tmp_path / "new-replica")
    anew.snapshot()
    for each in (replica, anew):
        assert check(DirectoryStorage(each.root), keys) == []
