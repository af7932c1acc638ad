"""A repository whose reference log has gone, or is not the one that its manifest knows."""

from contextlib import suppress
from pathlib import Path

import pytest

from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import MANIFEST, REFLOG, ObjectKind, RefKind
from services.repository.native.revisions import revisions
from services.repository.native.tags import Tags
from services.repository.native.writer.history import TagName
from services.repository.native.writer.reflog import Reference, ReferenceLog
from tests.support.native import NATIVE_NAME, NativeSite, publish, tar_archive
from tests.support.tars import archive, member


@pytest.fixture
async def published(site: NativeSite, tmp_path: Path) -> NativeSite:
    """A repository with a few revisions."""
    async with site.opened() as repository:
        for number in range(3):
            await publish(repository, tar_archive(tmp_path, archive(member(b"file", b"%d" % number))))
    return site


def access(site: NativeSite) -> RepositoryAccess:
    return RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)


def references(site: NativeSite) -> set[Reference]:
    return set(ReferenceLog().read(site.storage.read(REFLOG), name=NATIVE_NAME))


def test_one_that_has_gone_is_made_again_by_the_next_change(published: NativeSite) -> None:
    known = {(reference.kind, reference.name) for reference in references(published)}
    (published.root / REFLOG).unlink()
    collector = Collector(
        access=access(published), retention=Retention(revisions=1, days=0), forget=lambda _digests: None, patience=1
    )
    assert collector.look().references == 0
    assert published.storage.size(REFLOG) is None
    collector.collect()
    assert {(reference.kind, reference.name) for reference in references(published)} == known
    (published.root / REFLOG).unlink()
    Tags(access(published)).add(TagName("x"), description="", revision=None)
    assert {(reference.kind, reference.name) for reference in references(published)} > known
    assert published.problems() == []


def test_one_that_is_damaged_is_not_signed(published: NativeSite) -> None:
    path = published.root / REFLOG
    path.write_bytes(path.read_bytes()[:1000])
    before = published.storage.read(MANIFEST)
    with suppress(BrokenRepositoryError):
        Tags(access(published)).add(TagName("x"), description="", revision=None)
    assert published.storage.read(MANIFEST) == before
    path.unlink()  # as the check advises
    Tags(access(published)).add(TagName("x"), description="", revision=None)
    assert published.problems() == []


def test_what_is_damaged_of_the_past_ends_what_is_followed_back(published: NativeSite) -> None:
    head, before, first = list(revisions(published.storage, access(published).head.read()))[:3]
    damaged = published.root / before.root.path(ObjectKind.CATALOG)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    Tags(access(published)).remove([])  # the head is fine
    (published.root / REFLOG).unlink()
    Tags(access(published)).add(TagName("x"), description="", revision=None)
    roots = {found.name for found in references(published) if found.kind is RefKind.CATALOG}
    assert head.root in roots
    assert first.root not in roots


def test_one_from_a_backup_gets_what_the_head_needs(published: NativeSite) -> None:
    manifest = access(published).head.read()
    older = [reference.name for reference in references(published) if reference.timestamp == manifest.published]
    assert len(older) > 1
    log = ReferenceLog().remove(published.storage.read(REFLOG), older, name=NATIVE_NAME)
    published.storage.replace(REFLOG, log)
    with access(published).changing():
        pass
    assert published.problems() == []
    assert (RefKind.CATALOG, manifest.root) in {(found.kind, found.name) for found in references(published)}
