"""Images that are asked for with outputs: all in one revision, made anew for others, kept as long as it is said."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.processes import wait_until
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import FlatOutput, ImageOutputs, PodmanOutput
from services.common.layout import layer_tree
from services.common.publisher_api import PublisherRefusedError
from services.publisher.settings import RepositoryKind
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.records import ObjectKind
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.image_site import ImagePublisher, layer_of, push_image, sha256
from tests.support.publisher import REPOSITORY
from tests.support.registries import RegistryServer
from tests.support.tars import archive, member

pytestmark = pytest.mark.asyncio(loop_scope="session")

_FLAT = ImageOutputs(flat=FlatOutput())
_BOTH = ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())
_LIST = "podmanStore/overlay-images/images.json"


@pytest_asyncio.fixture(loop_scope="session")
async def collecting(tmp_path: Path) -> AsyncIterator[ImagePublisher]:
    """A publisher that collects at once what is named by nothing, when it is asked to."""
    async with ImagePublisher.running(
        tmp_path / "publisher", collect_after=0, collect_interval=0, keep_replaced=0
    ) as publisher:
        yield publisher


def _shown(publisher: ImagePublisher, name: ImageName) -> bytes | None:
    """Read the file of an image's top layer by the image's name."""
    file = publisher.root / name.path / "file"
    return file.read_bytes() if file.exists() else None


def _flats(publisher: ImagePublisher) -> set[str]:
    return {place.name for place in publisher.root.glob(".flat/*/*")}


def _stored(publisher: ImagePublisher) -> dict[str, list[str]]:
    """Return the names of the images in podman's store."""
    return {row["id"]: row["names"] for row in json.loads((publisher.root / _LIST).read_bytes())}


async def test_an_image_with_everything_is_one_revision_of_a_native_repository(
    registry: RegistryServer, tmp_path: Path
) -> None:
    directory = tmp_path / "publisher"
    storage, keys = DirectoryStorage(directory / "repository"), KeyFiles(tmp_path / "keys", REPOSITORY)
    create_repository(name=REPOSITORY, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={})
    name = await push_image(registry, "everything:1", [layer_of("lower"), layer_of("upper")])
    async with ImagePublisher.running(
        directory, repository_kind=RepositoryKind.NATIVE, keys=tmp_path / "keys"
    ) as publisher:
        image = await publisher.published(name, outputs=_BOTH)
        assert image.outputs == {"flat": {"others_read": False}, "podman": {"store": None}}
        assert image.report == {}
        with RepositoryReader(storage, name=REPOSITORY, master_keys=[keys.public.read_bytes()]) as reader:
            revision = reader.newest(reader.head())
            assert reader.head().manifest.revision == image.revision
            link = revision.stat(f"/{name.path}".encode())
            assert link is not None
            places = [name.path, link.target.removeprefix(b"../").decode()]
            assert image.places == {"flat": tuple(places), "podman": ("podmanStore",)}
            flat = b"/" + link.target.removeprefix(b"../")
            file = revision.stat(flat + b"/file")
            assert file is not None
            assert b"".join(revision.content(file)) == b"upper"
            listed = revision.stat(f"/{_LIST}".encode())
            assert listed is not None
            assert [row["names"] for row in json.loads(b"".join(revision.content(listed)))] == [[name]]
        # The same again is there already; other outputs are made of what is there.
        again = await publisher.ask(name, digest=f"sha256:{image.published_digest}", outputs=_BOTH)
        assert (again.state, again.revision) == ("published", image.revision)
        others = ImageOutputs(flat=FlatOutput(others_read=True))
        await publisher.ask(name, digest=f"sha256:{image.published_digest}", outputs=others)
        anew = await publisher.becomes(name, "published")
        assert anew.outputs == {"flat": {"others_read": True}}
        assert anew.bytes_fetched == 0
        assert anew.revision == (image.revision or 0) + 1
        (version,) = await publisher.api.versions(name)
        assert version.digest == image.published_digest
        # So is a flat image that has been damaged.
        with RepositoryReader(storage, name=REPOSITORY, master_keys=[keys.public.read_bytes()]) as reader:
            catalog = reader.newest(reader.head()).catalog_of(flat).hash
        damaged = directory / "repository" / catalog.path(ObjectKind.CATALOG)
        damaged.unlink()

        async def mended() -> bool:
            return damaged.exists()

        await publisher.api.retry(name)
        await wait_until(mended, what="the flat image is made anew")
        mended_image = await publisher.becomes(name, "published")
        assert mended_image.bytes_fetched == 0


async def test_a_root_outlives_the_switch_until_it_is_collected_and_comes_back(
    registry: RegistryServer, collecting: ImagePublisher
) -> None:
    name = await push_image(registry, "switched:1", [layer_of("old")])
    first = await collecting.published(name, outputs=_BOTH)
    assert _shown(collecting, name) == b"old"
    (old,) = _flats(collecting)
    await push_image(registry, "switched:1", [layer_of("new")])
    await collecting.ask(name, outputs=_BOTH, keep_replaced_seconds=3600)
    await collecting.replaced(name, first)
    assert _shown(collecting, name) == b"new"
    await collecting.collected()
    assert old in _flats(collecting)
    assert _stored(collecting)[old] == []
    second = await collecting.becomes(name, "published")
    await collecting.api.restore(name)
    await collecting.replaced(name, second)
    assert _shown(collecting, name) == b"old"
    assert _stored(collecting)[old] == [name]
    await collecting.api.remove(name, keep_seconds=0)
    await collecting.becomes(name, "removed")
    assert not (collecting.root / name.registry).exists()
    assert old in _flats(collecting)
    await collecting.collected()
    assert (_flats(collecting), _stored(collecting)) == (set(), {})


async def test_an_image_leaves_its_store_when_nothing_keeps_it(
    registry: RegistryServer, collecting: ImagePublisher
) -> None:
    outputs = ImageOutputs(podman=PodmanOutput())
    name = await push_image(registry, "stored:1", [layer_of("base"), layer_of("old")])
    first = await collecting.published(name, outputs=outputs)
    (old,) = _stored(collecting)
    await push_image(registry, "stored:1", [layer_of("base"), layer_of("new")])
    await collecting.ask(name, outputs=outputs, keep_replaced_seconds=0)
    await collecting.replaced(name, first)
    (new,) = _stored(collecting).keys() - {old}
    assert _stored(collecting) == {old: [], new: [name]}
    gone = await collecting.collected()
    assert gone == [sha256(layer_of("old"))]
    assert _stored(collecting) == {new: [name]}
    rows = json.loads((collecting.root / "podmanStore/overlay-layers/layers.json").read_bytes())
    kept = {sha256(layer_of(text)).oci for text in ("base", "new")}
    assert {row["compressed-diff-digest"] for row in rows} == kept
    # The base is named on by the new version, and runs.
    assert (collecting.root / layer_tree(sha256(layer_of("base"))) / "file").exists()


async def test_a_layer_stays_as_long_as_an_image_that_stands_on_it_cannot_be_collected(
    registry: RegistryServer, collecting: ImagePublisher
) -> None:
    name = await push_image(registry, "in-the-way:1", [layer_of("kept")])
    first = await collecting.published(name, outputs=_BOTH)
    (flat,) = collecting.root.glob(".flat/*/*")
    await push_image(registry, "in-the-way:1", [layer_of("next")])
    await collecting.ask(name, outputs=_BOTH, keep_replaced_seconds=0)
    await collecting.replaced(name, first)
    target = flat.readlink()
    flat.unlink()
    flat.mkdir()
    done = await collecting.api.collect(dry_run=False)
    assert done.layers == ()
    kept = {each.digest: each.reason for each in done.kept}
    assert kept.keys() == {flat.name, sha256(layer_of("kept"))}
    assert "remove it by hand" in kept[Digest(flat.name)]
    assert "an image in podmanStore stands on" in kept[sha256(layer_of("kept"))]
    assert _stored(collecting)[flat.name] == []
    assert collecting.has(layer_of("kept")) == [True]
    flat.rmdir()
    flat.symlink_to(target)
    assert await collecting.collected() == [sha256(layer_of("kept"))]
    assert not flat.is_symlink()
    assert flat.name not in _stored(collecting)
    assert collecting.has(layer_of("kept")) == [False]


async def test_what_somebody_has_taken_away_is_made_again(registry: RegistryServer, publisher: ImagePublisher) -> None:
    name = await push_image(registry, "taken:1", [layer_of("taken")])
    await publisher.published(name, outputs=_BOTH)
    lock = publisher.root / "podmanStore/overlay-layers/layers.lock"
    for taken in (publisher.root / name.path, lock):
        taken.unlink()
        await publisher.api.retry(name)
        await wait_until(lambda: _is_there(taken), what=f"{taken.name} is there again")  # noqa: B023 - before the next
        image = await publisher.becomes(name, "published")
        assert image.bytes_fetched == 0


async def test_what_differs_from_what_apptainer_unpacks_is_reported(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    variant = archive(member(b"link", b"", b"2", link=b"$(VARIANT)/lib"))
    name = await push_image(registry, "differing:1", [variant])
    image = await publisher.published(name, outputs=_FLAT)
    (report,) = image.report.values()
    assert report == {"variant-link": {"count": 1, "first": ["'link'"]}}
    # It is that of the root file system, and stays with it however often that is asked for.
    await publisher.api.retry(name)
    again = await publisher.becomes(name, "published")
    assert again.report == image.report


async def test_a_name_that_is_a_place_of_the_repository_is_refused_at_once(publisher: ImagePublisher) -> None:
    name = ImageName("podmanStore/overlay:1")
    with pytest.raises(PublisherRefusedError, match="cannot be flat, since"):
        await publisher.ask(name, outputs=_FLAT)


async def _is_there(path: Path) -> bool:
    return path.exists()
