"""Images that the repository does not show as the journal says, and flat images that the journal does not know."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import FlatOutput, ImageOutputs
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
from tests.support.images import change, image_of_layers
from tests.support.publisher import REPOSITORY

_NAME = ImageName("quay.io/ns/tool:v1")
_FLAT = ImageOutputs(flat=FlatOutput())


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
    """A journal that knows one image, which is flat, and in the repository."""
    image = image_of_layers(_NAME, ("amd64", ()))
    (platform,) = platform_images(image)
    version = ImageVersion(
        name=_NAME,
        digest=platform.manifest_digest,
        reference=_NAME,
        platforms=("linux/amd64",),
        images=(PlatformImage("linux/amd64", platform.manifest_digest, platform.config_digest, ()),),
        documents={path: content for path, content in image.files.items() if not path.endswith("image.json")},
        verified=None,
        outputs=_FLAT,
    )
    async with Journal(SqliteDatabase(tmp_path / "journal.sqlite")) as journal:
        wish = ImageWish(name=_NAME, reference=_NAME, digest=version.digest, platforms=version.platforms, outputs=_FLAT)
        record = (await journal.images.ask(wish)).record
        assert await journal.versions.resolved(record, version, seconds=0)
        await journal.versions.published([PublishedImage(record=record, version=version, seconds=0)], (), revision=1)
        await change(repository, put=[documents_of(version, now=0)])
        yield journal


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


async def test_a_root_that_the_journal_does_not_know_is_told(
    journal: Journal, repository: DirectoryRepository, tmp_path: Path
) -> None:
    (tmp_path / f"root/.flat/00/{'0' * 64}").mkdir(parents=True)
    check = ImageCheck(journal=journal, repository=repository)
    findings = [finding async for finding in check.run() if finding is not None]
    assert [(each.kind, each.digest) for each in findings] == [(Disagreement.FLAT_ONLY_IN_REPOSITORY, Digest("0" * 64))]
