"""Outputs on their way from a wish list to an image: what is asked of the publisher, and what comes of it."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from services.common.image_outputs import FlatOutput, ImageOutputs, PodmanOutput
from services.common.publisher_api import ImageRequest
from services.converter.model import WishList
from services.converter.wishlist.reading import read_wish_list
from services.converter.wishlist.settings import WishListSettings
from tests.support import image_site
from tests.support.converter import REPOSITORY, SOURCE, Rig, push_small
from tests.support.image_publisher import ImagePublisher
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

_BOTH: Final = ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())


def _read(text: str, **settings: Any) -> WishList:  # noqa: ANN401 - fields of the settings
    reading = read_wish_list(text.encode(), SOURCE, recipe_outputs=WishListSettings(**settings).recipe_outputs)
    assert reading.problems == ()
    assert reading.wish_list is not None
    return reading.wish_list


def _own(registry: str, *entries: str, defaults: str = "{}") -> WishList:
    images = "\n".join(f"- {{image: '{registry}/outputs/{entry}}}" for entry in entries)
    return _read(
        f"version: 2\ndefaults: {{repositories: {REPOSITORY}, outputs: {defaults}}}\nimages:\n{images}\n",
    )


async def test_the_publisher_is_asked_for_what_the_list_says(registry: RegistryServer, rig: Rig) -> None:
    for name in ("default", "own", "none"):
        await push_small(registry.address, f"outputs/{name}:v1", name.encode())
    wanted = "outputs: {flat: {others_read: true}, podman: {store: atlas}}"
    rig.lists.lists = [
        _own(registry.address, "default:v1'", f"own:v1', {wanted}", "none:v1', outputs: []", defaults="[flat, podman]")
    ]
    async with rig.rounds() as rounds:
        assert (await rounds.once()).is_success
    bodies = {body["name"].rpartition("/")[2]: body for body in rig.publisher.asked()}
    # What is as usual, and what is not asked for, is left out.
    assert bodies["default:v1"]["outputs"] == {"flat": {}, "podman": {}}
    assert bodies["own:v1"]["outputs"] == {"flat": {"others_read": True}, "podman": {"store": "atlas"}}
    assert "outputs" not in bodies["none:v1"]
    taken = {name: ImageRequest.model_validate_json(json.dumps(body)).outputs for name, body in bodies.items()}
    assert taken == {
        "default:v1": _BOTH,
        "own:v1": ImageOutputs(flat=FlatOutput(others_read=True), podman=PodmanOutput(store="atlas")),
        "none:v1": ImageOutputs(),
    }


@pytest.mark.parametrize(
    ("settings", "outputs"),
    [
        ({}, ImageOutputs()),
        ({"ducc_outputs": "flat"}, ImageOutputs(flat=FlatOutput())),
        ({"ducc_outputs": "flat,podman"}, _BOTH),
    ],
)
async def test_an_image_of_a_recipe_has_the_outputs_that_the_setting_says(
    registry: RegistryServer, rig: Rig, settings: dict[str, Any], outputs: ImageOutputs
) -> None:
    await push_small(registry.address, "outputs/recipe:v1", b"recipe")
    recipe = (
        f"version: 1\nuser: cvmfsunpacker\ncvmfs_repo: '{REPOSITORY}'\n"
        f"output_format: ''\ninput:\n- 'http://{registry.address}/outputs/recipe:v1'\n"
    )
    rig.lists.lists = [_read(recipe, **settings)]
    async with rig.rounds() as rounds:
        assert (await rounds.once()).not_asked == 0
    (body,) = rig.publisher.asked()
    assert ImageRequest.model_validate_json(json.dumps(body)).outputs == outputs


async def test_other_outputs_in_the_list_make_the_image_anew_of_what_is_there(
    registry: RegistryServer, tmp_path: Path
) -> None:
    name = await image_site.push_image(registry, "outputs/changed:v1", [image_site.layer_of("changed")])
    async with image_site.ImagePublisher.running(tmp_path / "publisher", repository=REPOSITORY) as publisher:
        rig = Rig(directory=tmp_path, publisher=ImagePublisher(url=publisher.url.rstrip("/")))
        found = []
        for outputs in ("flat", "[flat, podman]"):
            rig.lists.lists = [_own(registry.address, "changed:v1'", defaults=outputs)]
            async with rig.rounds() as rounds:
                assert (await rounds.once()).is_success
            found.append(await publisher.becomes(name, "published"))
    first, second = found
    assert first.outputs == {"flat": {"others_read": False}}
    assert first.bytes_fetched > 0
    assert second.outputs == {"flat": {"others_read": False}, "podman": {"store": None}}
    assert (second.published_digest, second.bytes_fetched) == (first.published_digest, 0)
    stored = json.loads((publisher.root / "podmanStore/overlay-images/images.json").read_bytes())
    assert [row["names"] for row in stored] == [[name]]
    assert second.places["podman"] == ("podmanStore",)
