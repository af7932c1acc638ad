"""Outputs that an image's record names, and that the revision does not have, are told."""

import json
from collections.abc import Callable
from pathlib import Path

from services.common.image_name import ImageName
from services.repository.image_platforms import platform_images
from services.repository.native.flat.places import PROPERTY, flat_path
from services.repository.native.writer.open_catalogs import OpenCatalogs
from services.repository.native.writer.tree_rows import TreeRows
from services.repository.outputs import FlatOutput, ImageOutputs, PodmanOutput
from tests.support.images import change, image_of_layers
from tests.support.native import NativeSite
from tests.support.publisher import make_layer

_NAMES = [ImageName(f"quay.io/ns/tool:{tag}") for tag in ("led", "gone", "nameless", "other", "foreign", "sound")]


def _set_recipe(path: bytes, recipe: object) -> Callable[[OpenCatalogs], None]:
    def damage(catalogs: OpenCatalogs) -> None:
        opened = catalogs.at(path)
        opened.catalog.set_properties({PROPERTY: json.dumps(recipe)})
        opened.changed = True

    return damage


async def test_every_output_that_is_not_there_is_told(site: NativeSite, tmp_path: Path) -> None:
    base, top = (make_layer(tmp_path, name) for name in ("base", "top"))
    outputs = ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())
    images = {
        name: image_of_layers(name, ("amd64", [base]), outputs=outputs, config={"Cmd": [name]}) for name in _NAMES
    }
    # Several platforms have several links.
    images[_NAMES[0]] = image_of_layers(_NAMES[0], ("amd64", [base]), ("arm64:v8", [top]), outputs=outputs)
    async with site.opened() as repository:
        await change(repository, layers=[base, top], put=list(images.values()))
    assert site.problems() == []
    led, gone, nameless, other, foreign, _ = _NAMES
    flats = {name: flat_path(platform_images(image)[0].config_digest) for name, image in images.items()}
    with site.changing() as catalogs:
        rows = TreeRows(catalogs)
        rows.put_symlink(f"/.multiarch/arm64:v8/{led}".encode(), b"../../../../.flat/elsewhere")
        rows.remove(flats[gone])
        rows.remove(f"/{nameless}".encode())
        _set_recipe(flats[other], {"version": 2, "layers": [top.digest], "others_read": False})(catalogs)
        _set_recipe(flats[foreign], None)(catalogs)
    expected = [
        f"/.multiarch/arm64:v8/{led}: does not lead to ../../../../.flat/",
        f"{flats[gone].decode()}: is missing: image {gone} is flat",
        f"/{nameless}: does not lead to ../../.flat/",
        f"{flats[other].decode()}: was made of other layers than image {other} has",
        f"{flats[foreign].decode()}: is not what this suite makes of image {foreign}",
    ]
    problems = site.problems()
    for start in expected:
        assert any(problem.startswith(start) for problem in problems), (start, problems)


async def test_an_image_that_is_in_no_store_though_it_should_be_is_told(site: NativeSite, tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "base")
    name = _NAMES[0]
    image = image_of_layers(name, ("amd64", [layer]), outputs=ImageOutputs(podman=PodmanOutput(store="atlas")))
    async with site.opened() as repository:
        await change(repository, layers=[layer], put=[image])
        assert site.problems() == []
        async with repository.transaction("token") as transaction:
            await transaction.remove_flat(platform_images(image)[0].config_digest)
            await transaction.publish()
    (problem,) = site.problems()
    assert problem == f"/podmanStores/atlas: does not have image {name}, which is to be in it"
