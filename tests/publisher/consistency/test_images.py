"""Images that the repository does not show as the journal says, and flat images that the journal does not know."""

import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import FlatOutput, ImageOutputs, PodmanOutput
from services.common.layout import LayerLayout
from services.publisher.consistency.images import ImageCheck
from services.publisher.consistency.model import Disagreement
from services.publisher.journal.image_model import ImageVersion, ImageWish, PlatformImage
from services.publisher.journal.journal import Journal
from services.publisher.journal.sqlite import SqliteDatabase
from services.publisher.journal.versions import PublishedImage
from services.publisher.pipeline.images.documents import documents_of
from services.repository.directory.repository import DirectoryRepository
from services.repository.image_platforms import platform_images
from services.repository.interface import ImageDocuments
from services.repository.native.trust.keyring import KeyFiles
from tests.support.ducc import DuccImage, DuccTree, native_of_tree
from tests.support.images import change, image_of_layers
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.publisher import REPOSITORY
from tests.support.tars import archive, member

_NAME = ImageName("quay.io/ns/tool:v1")
_BOTH = ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())


@pytest.fixture
async def repository(tmp_path: Path) -> AsyncIterator[DirectoryRepository]:
    with ThreadPoolExecutor(2) as threads:
        async with DirectoryRepository(
            name=REPOSITORY, root=tmp_path / "root", layout=LayerLayout.FLAT, threads=threads
        ) as repository:
            await repository.recover(())
            yield repository


@pytest.fixture
async def journal(tmp_path: Path, repository: DirectoryRepository) -> AsyncIterator[Journal]:
    """A journal that knows one image, which is in the repository with all outputs."""
    async with Journal(SqliteDatabase(tmp_path / "journal.sqlite")) as journal:
        version = await _record(journal, image_of_layers(_NAME, ("amd64", ())))
        await change(repository, put=[documents_of(version, now=0)])
        yield journal


async def _record(journal: Journal, image: ImageDocuments) -> ImageVersion:
    """Record an image as published, with all outputs."""
    (platform,) = platform_images(image)
    version = ImageVersion(
        name=_NAME,
        digest=platform.manifest_digest,
        reference=_NAME,
        platforms=("linux/amd64",),
        images=(PlatformImage("linux/amd64", platform.manifest_digest, platform.config_digest, ()),),
        documents={path: content for path, content in image.files.items() if not path.endswith("image.json")},
        verified=None,
        outputs=_BOTH,
    )
    wish = ImageWish(name=_NAME, reference=_NAME, digest=version.digest, platforms=version.platforms, outputs=_BOTH)
    await journal.images.ask(wish)
    record = await journal.images.claim(busy=(), full=())
    assert record is not None
    assert await journal.versions.resolved(record, version, seconds=0)
    await journal.versions.published([PublishedImage(record=record, version=version, seconds=0)], (), revision=1)
    await journal.images.release([_NAME])
    return version


async def _found(journal: Journal, repository: DirectoryRepository) -> list[tuple[Disagreement, ImageName | None]]:
    check = ImageCheck(journal=journal, repository=repository)
    return [(finding.kind, finding.image) async for finding in check.run() if finding is not None]


async def test_a_name_or_a_root_that_is_missing_is_found(
    journal: Journal, repository: DirectoryRepository, tmp_path: Path
) -> None:
    assert await _found(journal, repository) == []
    for path in (tmp_path / "root" / _NAME, *(tmp_path / "root").glob(".flat/*/*")):
        target = path.readlink()
        path.unlink()
        assert await _found(journal, repository) == [(Disagreement.IMAGE_NOT_SHOWN, _NAME)]
        path.symlink_to(target)
    assert await _found(journal, repository) == []


async def test_a_version_that_the_repository_does_not_show_any_more_or_not_yet_is_told_apart(
    journal: Journal, repository: DirectoryRepository
) -> None:
    newer = await _record(journal, image_of_layers(_NAME, ("amd64", ()), config={"Cmd": ["newer"]}))
    assert (Disagreement.IMAGE_FORMER, _NAME) in await _found(journal, repository)
    unknown = image_of_layers(_NAME, ("amd64", ()), outputs=_BOTH, config={"Cmd": ["unknown to the journal"]})
    await change(repository, put=[unknown])
    assert (Disagreement.IMAGE_OTHER, _NAME) in await _found(journal, repository)
    await change(repository, put=[documents_of(newer, now=0)])
    assert {kind for kind, _ in await _found(journal, repository)} <= {Disagreement.FLAT_ONLY_IN_REPOSITORY}


async def test_a_root_that_the_journal_does_not_know_is_told(
    journal: Journal, repository: DirectoryRepository, tmp_path: Path
) -> None:
    (tmp_path / f"root/.flat/00/{'0' * 64}").mkdir(parents=True)
    check = ImageCheck(journal=journal, repository=repository)
    findings = [finding async for finding in check.run() if finding is not None]
    assert [(each.kind, each.digest) for each in findings] == [(Disagreement.FLAT_ONLY_IN_REPOSITORY, Digest("0" * 64))]


async def test_an_image_that_podman_could_not_run_is_found(
    journal: Journal, repository: DirectoryRepository, tmp_path: Path
) -> None:
    record = await journal.images.get(_NAME)
    assert record is not None
    assert record.published is not None
    version = await journal.versions.read(_NAME, record.published)
    assert version is not None
    for file in (
        "overlay-layers/layers.lock",
        "overlay-images/images.json",
        f"overlay-images/{version.images[0].config}",
    ):
        place = tmp_path / "root/podmanStore" / file
        shutil.rmtree(place) if place.is_dir() else os.unlink(place)
        assert await _found(journal, repository) == [(Disagreement.IMAGE_NOT_SHOWN, _NAME)]
        await change(repository, put=[documents_of(version, now=0)])
        assert await _found(journal, repository) == []


async def test_what_a_store_shows_and_the_journal_does_not_have_there_is_told(
    journal: Journal, repository: DirectoryRepository
) -> None:
    stored = ImageOutputs(podman=PodmanOutput(store="atlas"))
    hub = ImageName("registry.hub.docker.com/library/other:v1")
    await change(
        repository,
        put=[
            image_of_layers(_NAME, ("amd64", ()), outputs=stored, config={"Cmd": ["other"]}),
            image_of_layers(hub, ("amd64", ()), outputs=stored, config={"Cmd": ["another"]}),
        ],
    )
    found = await _found(journal, repository)
    assert found.count((Disagreement.STORE_ONLY_IN_REPOSITORY, _NAME)) == 1
    # By one of its names, though podman finds it by two.
    assert found.count((Disagreement.STORE_ONLY_IN_REPOSITORY, hub)) == 1
    assert [kind for kind, _ in found].count(Disagreement.STORE_ONLY_IN_REPOSITORY) == 2


async def test_what_ducc_has_made_and_nobody_has_taken_over_is_told_as_that(tmp_path: Path) -> None:
    image = DuccImage.made("quay.io/ns/theirs:v1", [archive(member(b"file", b"theirs"))])
    tree = DuccTree(tmp_path / "ducc")
    tree.convert(image)
    keys = KeyFiles(tmp_path / "keys", NATIVE_NAME)
    keys.complete(now=datetime.now(UTC))
    site = NativeSite(root=tmp_path / "native", state=tmp_path / "state", keys=keys)
    site.create()
    native_of_tree(site, tree.root)
    async with Journal(SqliteDatabase(tmp_path / "journal.sqlite")) as journal, site.opened() as repository:
        check = ImageCheck(journal=journal, repository=repository)
        found = {(each.kind, each.image or each.digest) async for each in check.run() if each is not None}
    assert found == {(Disagreement.OF_DUCC, image.name), (Disagreement.OF_DUCC, image.config_digest)}
