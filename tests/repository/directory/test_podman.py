"""Stores of podman's in a directory: what the file system does not take is one image's failure."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.common.image_name import ImageName
from services.common.image_outputs import ImageOutputs, PodmanOutput
from services.common.layout import sidecar_path
from services.common.sidecar import LayerSidecar
from services.repository.directory.repository import DirectoryRepository
from services.repository.errors import ImageAdditionError
from tests.support.directory_killed import opened_directory
from tests.support.images import change, image_of_layers
from tests.support.native import tar_archive
from tests.support.tars import archive, member

_PODMAN = ImageOutputs(podman=PodmanOutput())


@pytest.fixture
async def repository(root: Path, threads: ThreadPoolExecutor) -> AsyncIterator[DirectoryRepository]:
    async with opened_directory(root, threads) as repository:
        await repository.recover(())
        yield repository


@pytest.mark.parametrize(
    ("whiteouts", "told"),
    [
        (("a", "a/b"), "deletes a path and something at or below it: a/b"),
        (("/".join(["d" * 200] * 20),), "File name too long"),
    ],
)
async def test_deletions_that_cannot_be_kept_fail_their_image_alone(
    repository: DirectoryRepository, root: Path, tmp_path: Path, whiteouts: tuple[str, ...], told: str
) -> None:
    bad, good = (tar_archive(tmp_path, archive(member(name, name))) for name in (b"bad", b"good"))
    await change(repository, layers=[bad, good])
    sidecar = root / sidecar_path(bad.digest)
    written = LayerSidecar.parse(sidecar.read_bytes(), where="here")
    sidecar.write_bytes(written.model_copy(update={"whiteouts": whiteouts, "deletions": "listed"}).encode())
    async with repository.transaction("token") as transaction:
        with pytest.raises(ImageAdditionError, match=told):
            await transaction.put_image(image_of_layers("quay.io/ns/bad:v1", ("amd64", [bad]), outputs=_PODMAN))
        await transaction.put_image(image_of_layers("quay.io/ns/good:v1", ("amd64", [good]), outputs=_PODMAN))
        await transaction.publish()
    assert await repository.list_images() == [ImageName("quay.io/ns/good:v1")]
    assert "ns/good:v1" in (root / "podmanStore/overlay-images/images.json").read_text()
    assert not list(root.rglob(".mask*"))
