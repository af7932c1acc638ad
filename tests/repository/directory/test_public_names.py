"""Names of flat images in a directory: links that change with their images, all in one moment."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout
from services.repository.directory.repository import DirectoryRepository
from services.repository.errors import ImageAdditionError
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from services.repository.outputs import FlatOutput, ImageOutputs
from services.repository.public_names import flat_home
from tests.support.images import change, image_of_layers
from tests.support.publisher import REPOSITORY

_NAME = "quay.io/ns/tool:v1"


@pytest.fixture
async def repository(root: Path, threads: ThreadPoolExecutor) -> AsyncIterator[DirectoryRepository]:
    async with DirectoryRepository(name=REPOSITORY, root=root, layout=LayerLayout.FLAT, threads=threads) as repository:
        await repository.recover(())
        yield repository


def _image(*machines: str, name: str = _NAME, build: str = "1") -> tuple[ImageDocuments, list[Digest]]:
    """Make an image that is flat; return the configurations of its root file systems as well."""
    image = image_of_layers(
        name,
        *((machine, ()) for machine in machines or ("amd64",)),
        outputs=ImageOutputs(flat=FlatOutput()),
        config={"Labels": {name: build}},
    )
    return image, [each.config_digest for each in platform_images(image)]


def _leads_to(root: Path, config: Digest, name: str = _NAME) -> bool:
    """Tell whether a name leads to the root file system of a configuration."""
    return (root / name).is_dir() and (root / name).samefile(root / flat_home(config))


def _links(root: Path) -> set[str]:
    found = (path for top in ("quay.io", ".multiarch") for path in (root / top).rglob("*"))
    return {str(path.relative_to(root)) for path in found if path.is_symlink()}


async def test_names_and_documents_change_in_one_moment(repository: DirectoryRepository, root: Path) -> None:
    first, (one,) = _image()
    second, (two,) = _image(build="2")
    other, (three,) = _image(name="quay.io/other:v1")
    await change(repository, put=[first])
    assert _leads_to(root, one)
    async with repository.transaction("token") as transaction:
        await transaction.put_image(second)
        await transaction.put_image(other)
        assert _leads_to(root, one)
        assert not (root / "quay.io/other:v1").exists()
        await transaction.publish()
    assert _leads_to(root, two)
    assert _leads_to(root, three, "quay.io/other:v1")
    assert await repository.flats_of(ImageName(_NAME)) == {two}
    assert await repository.list_flats() == {one, two, three}
    assert await repository.read_image(ImageName(_NAME)) == second.files
    await change(repository, remove=[_NAME])
    assert _links(root) == {"quay.io/other:v1"}
    assert not (root / "quay.io/ns").exists()
    assert await repository.flats_of(ImageName(_NAME)) == frozenset()
    assert (root / flat_home(two)).is_dir()


async def test_further_platforms_come_and_go_with_the_links_of_their_processors(
    repository: DirectoryRepository, root: Path
) -> None:
    image, (amd64, arm64) = _image("amd64", "arm64")
    await change(repository, put=[image])
    assert _leads_to(root, amd64)
    assert _leads_to(root, arm64, f".multiarch/aarch64/{_NAME}")
    assert _leads_to(root, arm64, f".multiarch/arm64:v8/{_NAME}")
    assert await repository.flats_of(ImageName(_NAME)) == {amd64, arm64}
    single, _ = _image("amd64")
    await change(repository, put=[single])
    assert _links(root) == {_NAME}
    assert not (root / ".multiarch").exists()


async def test_an_image_that_is_flat_no_more_loses_its_name_only(repository: DirectoryRepository, root: Path) -> None:
    image, (config,) = _image()
    await change(repository, put=[image])
    await change(repository, put=[image_of_layers(_NAME, ("amd64", ()))])
    assert _links(root) == set()
    assert (root / flat_home(config)).is_dir()
    await change(repository, put=[image])
    assert _leads_to(root, config)


async def test_a_transaction_that_is_not_published_leaves_no_name(repository: DirectoryRepository, root: Path) -> None:
    image, _ = _image("amd64", "arm64")
    async with repository.transaction("token") as transaction:
        await transaction.put_image(image)
    assert _links(root) == set()


@pytest.mark.parametrize(
    ("put", "says"),
    [
        (lambda root: (root / "quay.io").write_text(""), "quay.io is no directory"),
        (lambda root: (root / "quay.io").mkdir() or (root / "quay.io/ns").symlink_to("/etc"), "ns is no directory"),
        (lambda root: (root / _NAME).mkdir(parents=True), "is there already"),
        (lambda root: (root / "quay.io/ns").mkdir(parents=True) or (root / _NAME).symlink_to("/etc"), "there already"),
    ],
)
async def test_what_others_have_put_there_is_left_alone(
    repository: DirectoryRepository, root: Path, put: Callable[[Path], object], says: str
) -> None:
    image, _ = _image()
    put(root)
    async with repository.transaction("token") as transaction:
        with pytest.raises(ImageAdditionError, match=rf"{says}.* remove it"):
            await transaction.put_image(image)
        await transaction.publish()
    assert await repository.read_image(ImageName(_NAME)) is None
