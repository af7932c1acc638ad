"""From a registry to a repository by way of the real publisher, and out of it again."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.common.image_name import ImageName
from services.common.layout import LayerLayout
from services.converter.adoption.inventory import take_inventory
from services.converter.adoption.model import Verdict
from services.converter.adoption.taking import take_over
from services.converter.model import DAY, ChosenTags, ThinTarget
from services.publisher.settings import RepositoryKind
from services.registry.client import RegistryClient
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from services.repository.native.trust.keyring import KeyFiles
from tests.support.converter import REPOSITORY, Rig, wish
from tests.support.ducc import DuccImage, DuccTree, native_of_tree, paths_of_ducc
from tests.support.image_publisher import ImagePublisher as Recorder
from tests.support.image_site import ImagePublisher, layer_of, push_image
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.registries import RegistryServer, impatient

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(tmp_path: Path) -> AsyncIterator[ImagePublisher]:
    """A publisher to a directory."""
    async with ImagePublisher.running(tmp_path / "publisher", options=impatient(read_timeout=60.0)) as publisher:
        yield publisher


async def test_images_come_are_replaced_and_go(
    registry: RegistryServer, publisher: ImagePublisher, tmp_path: Path
) -> None:
    rig = Rig(directory=tmp_path, publisher=Recorder(url=publisher.url))
    rig.verifier.verified = {"policies": [{"policy": "signed", "key": "a key"}]}
    base, first, second = (layer_of(text) for text in ("base", "first", "second"))
    name = await push_image(registry, "end/tool:v1", [base, first])
    other = await push_image(registry, "end/tool:v2", [base])
    target = ThinTarget(
        template=f"https://{registry.address}/thin/$(image)", repository=REPOSITORY, layout=LayerLayout.FLAT
    )
    everything = wish(f"{registry.address}/end/tool", ChosenTags(), thin=(target,))
    rig.lists.wish(everything)

    async with rig.rounds() as rounds:
        assert (await rounds.once()).is_success
        assert publisher.has(base, first, second) == [True, True, False]
        record = json.loads(publisher.documents(name)["image.json"])
        assert record["verified"] == rig.verifier.verified
        async with RegistryClient(options=impatient(read_timeout=60.0)) as client:
            thin = ImageReference.parse(f"{registry.address}/thin/end/tool:v1")
            pushed = (await client.manifest(thin)).digest

            await push_image(registry, "end/tool:v1", [base, second])
            assert (await rounds.once()).is_success
            assert (await client.manifest(thin)).digest != pushed
        assert publisher.has(base, first, second) == [True, True, True]
        assert json.loads(publisher.documents(name)["image.json"])["digest"] != record["digest"]

        assert (await rounds.once()).is_success  # and there is nothing to do
        rig.lists.wish(wish(f"{registry.address}/end/tool", "v2"))
    async with rig.rounds() as rounds:
        assert (await rounds.once()).is_success
        assert publisher.documents(name)
        rig.clocks.pass_by(8 * DAY)
        result = await rounds.once()
    assert result.retention.removed == 1
    await publisher.becomes(name, "removed")
    assert not publisher.documents(name)
    assert publisher.documents(other)
    lines = [json.loads(line) for line in rig.notifications.read_text().splitlines()]
    ended = [line for line in lines if line["action"] == "end_layer_conversion"]
    assert {line["image"] for line in ended} == {name, other}
    assert all(line["status"] == "ok" and line["size_bytes"] > 0 for line in ended)
    published = rig.metrics.registry.get_sample_value("converter_images_published_total", {"repository": REPOSITORY})
    assert published == 3
    saved = rig.metrics.registry.get_sample_value("converter_saved_bytes_total", {"repository": REPOSITORY})
    assert saved is not None
    assert saved >= len(base)


def _paths(site: NativeSite) -> dict[bytes, bytes]:
    """Return the names of images in a native repository with what they lead to, and the places of layers and flats."""
    with site.newest() as revision:
        found = {entry.path: entry.target for entry in revision.walk(b"") if not entry.path.startswith(b"/podmanStore")}
    top = (b"/.layers/", b"/.flat/", b"/.metadata/")
    inside = re.compile(rb"/\.(layers|flat)/../[0-9a-f]{64}/(?!layerfs$)")
    return {path: to for path, to in found.items() if to or (path.startswith(top) and inside.match(path) is None)}


@pytest.mark.parametrize("kind", [RepositoryKind.DIRECTORY, RepositoryKind.NATIVE])
async def test_a_repository_of_duccs_is_taken_over(
    registry: RegistryServer, tmp_path: Path, kind: RepositoryKind
) -> None:
    base, top, other = layer_of("base"), layer_of("top"), layer_of("other")
    directory, options = tmp_path / "publisher", impatient(read_timeout=60.0)
    names = [
        await push_image(registry, f"{kind}/{name}:v1", layers)
        for name, layers in (("one", [base, top]), ("two", [base, other]))
    ]
    gone = DuccImage.made(f"{registry.address}/{kind}/gone:v1", [other])
    tree = DuccTree((directory if kind is RepositoryKind.DIRECTORY else tmp_path) / "repository")
    async with RegistryClient(options=options) as client:
        for name, layers in zip(names, ([base, top], [base, other]), strict=True):
            image = await client.image(ImageReference.parse(name), Platform.parse("linux/amd64"))
            tree.convert(DuccImage(name=name, manifest=image.manifest, config=image.config, layers=layers))
    tree.convert(gone)
    settings: dict[str, Any] = {"repository_kind": kind, "layout": LayerLayout.DUCC}
    keys = KeyFiles(tmp_path / "keys", NATIVE_NAME)
    site = NativeSite(root=directory / "repository", state=tmp_path / "unused", keys=keys)
    if kind is RepositoryKind.NATIVE:
        site.create()
        native_of_tree(site, tree.root)
        settings |= {"repository": NATIVE_NAME, "keys": tmp_path / "keys"}
    before = paths_of_ducc(tree.root) if kind is RepositoryKind.DIRECTORY else _paths(site)

    found = await asyncio.to_thread(take_inventory, tree.root, contents=True)
    assert {image.name: image.verdict for image in found.images} == dict.fromkeys([*names, gone.name], Verdict.ANEW)
    told: dict[ImageName, str | None] = {}

    def tell(name: ImageName, failure: str | None) -> None:
        told[name] = failure

    if kind is RepositoryKind.DIRECTORY:  # the publisher ends before it has published them, and is asked once more
        async with ImagePublisher.running(directory, options=options, **settings) as publisher:
            taken = await take_over(found.images, publisher.api, wait=False, told=tell)
        assert sorted([*taken.published, *taken.waiting, *taken.failed]) == sorted(told.keys() | set(taken.waiting))
    async with ImagePublisher.running(directory, options=options, **settings) as publisher:
        taken = await take_over(found.images, publisher.api, wait=True, told=tell)
        assert sorted(taken.published) == sorted(names)
        assert taken.failed.keys() == {gone.name}
        images = [await publisher.becomes(name, "published") for name in names]
    after = paths_of_ducc(tree.root) if kind is RepositoryKind.DIRECTORY else _paths(site)
    assert before.items() <= after.items()
    assert {tuple(image.outputs) for image in images} == {("flat", "podman")}
    if kind is RepositoryKind.NATIVE:
        assert site.problems() == []
        return
    found = await asyncio.to_thread(take_inventory, tree.root, contents=True)
    verdicts = {image.name: (image.verdict, image.faults) for image in found.images}
    assert verdicts == {
        **dict.fromkeys(names, (Verdict.OURS, ())),
        gone.name: (Verdict.ANEW, ()),
    }
    wrong = {digest for digest, layer in found.layers.items() if not layer.is_right}
    assert wrong == set()  # the layer of what is gone is that of another image
