"""From an ask to what a reader of the repository sees: an image is there whole, with its documents, or not at all."""

import json
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.common.layout import layer_tree
from services.publisher.settings import RepositoryKind
from services.repository.native.access import RepositoryAccess
from services.repository.native.check.checker import Checker
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.records import ObjectKind
from services.repository.native.republication import republish_layers
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.image_site import ImagePublisher, layer_of, push_image, sha256
from tests.support.publisher import REPOSITORY
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_image_is_published_with_its_documents(registry: RegistryServer, publisher: ImagePublisher) -> None:
    layers = [layer_of("flow one"), layer_of("flow two"), layer_of("flow one")]
    name = await push_image(registry, "flow:1", layers)
    asked = await publisher.ask(name, verified={"policy": "none"})
    assert asked.state == "asked"
    image = await publisher.becomes(name, "published")
    assert publisher.has(*layers) == [True] * 3
    documents = publisher.documents(name)
    assert set(documents) == {"manifest.json", "config.json", "image.json"}
    assert image.published_digest == sha256(documents["manifest.json"])
    manifest = json.loads(documents["manifest.json"])
    assert manifest["config"]["digest"] == f"sha256:{sha256(documents['config.json'])}"
    record = json.loads(documents["image.json"])
    assert (record["name"], record["digest"]) == (name, f"sha256:{image.published_digest}")
    assert record["verified"] == image.verified == {"policy": "none"}
    (platform,) = record["platforms"]
    assert platform["platform"] == "linux/amd64"
    assert [layer["digest"] for layer in platform["layers"]] == [f"sha256:{sha256(layer)}" for layer in layers]
    assert [layer.state for layer in image.layers] == ["published"] * 2
    assert image.bytes_fetched == sum(map(len, layers[:2]))
    assert all(seconds is not None for seconds in (image.steps.resolving, image.steps.fetching, image.steps.publishing))


async def test_an_image_whose_link_is_lost_is_published_again_by_a_retry(
    registry: RegistryServer, publisher: ImagePublisher
) -> None:
    name = await push_image(registry, "unlinked:1", [layer_of("unlinked")])
    await publisher.published(name)
    (publisher.root / ".metadata" / name.path).unlink()
    await publisher.api.retry(name)
    await publisher.becomes(name, "published")
    assert set(publisher.documents(name)) == {"manifest.json", "config.json", "image.json"}


async def test_only_what_is_missing_is_fetched(registry: RegistryServer, publisher: ImagePublisher) -> None:
    first = await push_image(registry, "changed:1", [layer_of(f"base {number}") for number in range(4)])
    await publisher.published(first)
    second = await push_image(
        registry, "changed:2", [*(layer_of(f"base {number}") for number in range(4)), layer_of("new")]
    )
    image = await publisher.published(second)
    assert image.bytes_fetched == len(layer_of("new"))
    assert image.bytes_known == sum(len(layer_of(f"base {number}")) for number in range(4))


async def test_what_is_published_already_is_only_checked(registry: RegistryServer, publisher: ImagePublisher) -> None:
    name = await push_image(registry, "again:1", [layer_of("again")])
    image = await publisher.published(name)
    again = await publisher.ask(name, digest=f"sha256:{image.published_digest}")
    assert (again.state, again.asked_at, again.revision) == ("published", image.asked_at, image.revision)
    assert again.checked_at is not None
    assert image.checked_at is not None
    assert again.checked_at > image.checked_at
    await publisher.ask(name)  # what the tag names has to be looked for
    same = await publisher.becomes(name, "published")
    assert (same.revision, same.published_at) == (image.revision, image.published_at)
    assert await publisher.api.checked([(name, Digest(image.published_digest or "")), (name, Digest("0" * 64))]) == (
        name,
    )


async def test_an_image_is_published_to_a_native_repository(registry: RegistryServer, tmp_path: Path) -> None:
    directory = tmp_path / "publisher"
    storage, keys = DirectoryStorage(directory / "repository"), KeyFiles(tmp_path / "keys", REPOSITORY)
    create_repository(name=REPOSITORY, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={})
    layers = [layer_of("native one"), layer_of("native two")]
    name = await push_image(registry, "native:1", layers)
    async with ImagePublisher.running(
        directory, repository_kind=RepositoryKind.NATIVE, keys=tmp_path / "keys"
    ) as publisher:
        image = await publisher.published(name)
        with RepositoryReader(storage, name=REPOSITORY, master_keys=[keys.public.read_bytes()]) as reader:
            revision = reader.newest(reader.head())
            entry = revision.stat(f"/.metadata/{name.path}/manifest.json".encode())
            assert entry is not None
            assert sha256(b"".join(revision.content(entry))) == image.published_digest
            file = revision.stat(f"/{layer_tree(sha256(layers[0]))}/file".encode())
        assert file is not None
        assert file.hash is not None
        # A layer that is damaged comes from the registry once more.
        storage.replace(file.hash.path(ObjectKind.FILE), b"damaged")
        checker = Checker(storage, name=REPOSITORY, master_keys=[keys.public.read_bytes()])
        assert len(checker.run().problems) == 1
        republish_layers(RepositoryAccess.open(name=REPOSITORY, storage=storage, keys=keys), [sha256(layers[0])])
        await publisher.api.retry(name)
        again = await publisher.becomes(name, "published")
        assert again.bytes_fetched == len(layers[0])
        assert checker.run().problems == ()
        await publisher.api.remove(name)
        await publisher.becomes(name, "removed")
