"""Names of flat images in a directory: links that change with their images, all in one moment."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
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
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
async def repository(root: Path, threads: ThreadPoolExecutor) -> AsyncIterator[DirectoryRepository]:
    async with DirectoryRepository(name=REPOSITORY, root=root, layout=LayerLayout.FLAT, threads=threads) as repository:
        await repository.recover(())
        yield repository


def _image(root: Path, *machines: str, name: str = _NAME, build: str = "1") -> tuple[ImageDocuments, list[Digest]]:
    """Make an image that is flat, and its root file systems; return their configurations."""
    image = image_of_layers(
        name,
        *((machine, ()) for machine in machines or ("amd64",)),
        outputs=ImageOutputs(flat=FlatOutput()),
        config={"Labels": {name: build}},
    )
    configs = [each.config_digest for each in platform_images(image)]
    for config in configs:
        (root / flat_home(config)).mkdir(parents=True, exist_ok=True)
    return image, configs


def _leads_to(root: Path, name: str = _NAME) -> str:
    return os.path.relpath(os.path.realpath(root / name), os.path.realpath(root))


def _links(root: Path) -> set[str]:
    found = (path for top in ("quay.io", ".multiarch") for path in (root / top).rglob("*"))
    return {str(path.relative_to(root)) for path in found if path.is_symlink()}


async def test_names_and_documents_change_in_one_moment(repository: DirectoryRepository, root: Path) -> None:
    first, (one,) = _image(root)
    second, (two,) = _image(root, build="2")
    other, (three,) = _image(root, name="quay.io/other:v1")
    await change(repository, put=[first])
    assert _leads_to(root) == flat_home(one)
    async with repository.transaction("token") as transaction:
        await transaction.put_image(second)
        await transaction.put_image(other)
        assert _leads_to(root) == flat_home(one)
        assert not (root / "quay.io/other:v1").exists()
        await transaction.publish()
    assert (_leads_to(root), _leads_to(root, "quay.io/other:v1")) == (flat_home(two), flat_home(three))
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
    image, (amd64, arm64) = _image(root, "amd64", "arm64")
    await change(repository, put=[image])
    assert _leads_to(root) == flat_home(amd64)
    assert _leads_to(root, f".multiarch/aarch64/{_NAME}") == flat_home(arm64)
    assert _leads_to(root, f".multiarch/arm64:v8/{_NAME}") == flat_home(arm64)
    assert await repository.flats_of(ImageName(_NAME)) == {amd64, arm64}
    single, _ = _image(root, "amd64")
    await change(repository, put=[single])
    assert _links(root) == {_NAME}
    assert not (root / ".multiarch").exists()


async def test_an_image_that_is_flat_no_more_loses_its_name_only(repository: DirectoryRepository, root: Path) -> None:
    image, (config,) = _image(root)
    await change(repository, put=[image])
    await change(repository, put=[image_of_layers(_NAME, ("amd64", ()))])
    assert _links(root) == set()
    assert (root / flat_home(config)).is_dir()
    await change(repository, put=[image])
    assert _leads_to(root) == flat_home(config)


async def test_a_transaction_that_is_not_published_leaves_no_name(repository: DirectoryRepository, root: Path) -> None:
    image, _ = _image(root, "amd64", "arm64")
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
    image, _ = _image(root)
    put(root)
    async with repository.transaction("token") as transaction:
        with pytest.raises(ImageAdditionError, match=rf"{says}.* remove it"):
            await transaction.put_image(image)
        await transaction.publish()
    assert await repository.read_image(ImageName(_NAME)) is None


async def test_a_flat_image_goes_with_the_batch_unless_it_brings_one(
    repository: DirectoryRepository, root: Path
) -> None:
    gone, (one,) = _image(root)
    kept, (two,) = _image(root, name="quay.io/other:v1")
    await change(repository, put=[gone])
    async with repository.transaction("token") as transaction:
        await transaction.remove_image(ImageName(_NAME))
        await transaction.put_image(kept)
        for config in (one, two, Digest("0" * 64)):
            await transaction.remove_flat(config)
        assert (root / flat_home(one)).is_dir()
        await transaction.publish()
    assert await repository.list_flats() == {two}
    assert os.listdir(root / f".flat/{one[:2]}") == ([two] if one[:2] == two[:2] else [])
