"""Images with outputs in a native repository: all of one revision, and nothing where something is in the way."""

from pathlib import Path

import pytest

from services.common.image_name import ImageName
from services.repository.errors import ImageAdditionError
from services.repository.image_platforms import platform_images
from services.repository.native.reader.entries import Entry
from services.repository.native.writer.tree_rows import TreeRows
from services.repository.outputs import FlatOutput, ImageOutputs
from services.repository.public_names import flat_home
from tests.support.images import change, image_of_layers
from tests.support.native import NativeSite
from tests.support.publisher import make_layer, verified

_NAME = "quay.io/ns/tool:v1"
_FLAT = ImageOutputs(flat=FlatOutput())


async def test_layers_documents_flat_images_and_names_are_of_one_revision(site: NativeSite, tmp_path: Path) -> None:
    base, top = make_layer(tmp_path, "base", {"a": "1", "b": "1"}), make_layer(tmp_path, "top", {"b": "2"})
    image = image_of_layers(_NAME, ("amd64", [base, top]), ("arm64", [base]), outputs=_FLAT)
    async with site.opened() as repository:
        revision = await change(repository, layers=[base, top], put=[image])
        assert revision == site.revision()
        assert await repository.read_image(ImageName(_NAME)) == image.files
    amd64, arm64 = ("/" + flat_home(each.config_digest) for each in platform_images(image))
    with site.newest() as newest:
        assert b"".join(newest.content(_there(newest.stat(f"{amd64}/b".encode())))) == b"2"
        assert b"".join(newest.content(_there(newest.stat(f"{arm64}/b".encode())))) == b"1"
        link = newest.stat(f"/.multiarch/arm64/{_NAME}".encode())
        assert _there(link).target == f"../../../..{arm64}".encode()
    assert site.problems() == []


async def test_an_image_that_is_flat_no_more_loses_its_name_only(site: NativeSite, tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "base")
    image = image_of_layers(_NAME, ("amd64", [layer]), outputs=_FLAT)
    (flat,) = platform_images(image)
    home = b"/" + flat_home(flat.config_digest).encode()
    async with site.opened() as repository:
        await change(repository, layers=[layer], put=[image])
        await change(repository, put=[image_of_layers(_NAME, ("amd64", [layer]))])
        with site.newest() as newest:
            assert newest.stat(b"/quay.io") is None
            assert newest.stat(home) is not None
        await change(repository, put=[image])
        await change(repository, remove=[_NAME])
        with site.newest() as newest:
            assert newest.stat(b"/quay.io") is None
            assert newest.stat(home) is not None
    assert site.problems() == []


async def test_an_image_in_whose_place_something_is_changes_nothing(site: NativeSite, tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "base")
    image = image_of_layers(_NAME, ("amd64", [layer]), outputs=_FLAT)
    (flat,) = platform_images(image)
    async with site.opened() as repository:
        with site.changing() as catalogs:
            TreeRows(catalogs).put_file(f"/{_NAME}".encode(), b"somebody's")
        prepared = await repository.prepare(verified(layer))
        async with repository.transaction("token") as transaction:
            await transaction.add(prepared)
            with pytest.raises(ImageAdditionError, match="is no link of this suite's: remove it"):
                await transaction.put_image(image)
            await transaction.publish()
        await repository.discard(prepared)
        assert await repository.read_image(ImageName(_NAME)) is None
        assert await repository.lookup(layer.digest) is not None
    with site.newest() as newest:
        assert newest.stat(b"/" + flat_home(flat.config_digest).encode()) is None
    assert site.problems() == []


def _there(entry: Entry | None) -> Entry:
    assert entry is not None
    return entry
