"""The client against Debian's docker-registry, with images that other programs made."""

import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.registry.client import RegistryClient
from services.registry.documents import INDEX_TYPES, MANIFEST_TYPES
from services.registry.errors import (
    ImageMissingError,
    PlatformMissingError,
    RegistryUnavailableError,
    UnsupportedImageError,
)
from services.registry.images import Image, ImageLayer
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from tests.registry.conftest import LAYERS
from tests.support.oci import write_image
from tests.support.registries import RegistryServer, run_program

pytestmark = pytest.mark.asyncio(loop_scope="session")

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
DIFF_IDS = [hashlib.sha256(layer).hexdigest() for layer in LAYERS]


async def read(client: RegistryClient, image: Image, layer: ImageLayer) -> bytes:
    return b"".join([piece async for piece in client.blob(image.reference, layer.digest, layer.size)])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def built(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """An index that buildah made of two images, one of Docker's form and one of OCI's."""
    directory = tmp_path_factory.mktemp("buildah")
    (directory / "file").write_text("content")
    (directory / "Containerfile").write_text('FROM scratch\nCOPY file /a\nCOPY file /b\nENV A=b\nCMD ["/a"]\n')
    storage = ("--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", "vfs")
    build = ("buildah", *storage, "build", "--layers", "--isolation", "chroot", "--network", "host")
    await run_program(*build, "--format", "docker", "--platform", "linux/amd64", "-t", "first:1", str(directory))
    await run_program(*build, "--format", "oci", "--platform", "linux/arm64", "-t", "second:1", str(directory))
    await run_program("buildah", *storage, "manifest", "create", "both", "first:1", "second:1")
    name = f"{registry.address}/built:both"
    await run_program(
        "buildah", *storage, "manifest", "push", "--all", "--tls-verify=false", "both", f"docker://{name}"
    )
    yield name
    shutil.rmtree(directory)


async def test_an_oci_image_is_read_whole(client: RegistryClient, registry: RegistryServer) -> None:
    image = await client.image(ImageReference.parse(f"{registry.address}/layers:1"), AMD64)
    assert image.manifest_media_type == MANIFEST_TYPES[0]
    assert image.manifest_digest == hashlib.sha256(image.manifest).hexdigest()
    assert image.config_digest == hashlib.sha256(image.config).hexdigest()
    assert image.reference.origin == f"layers:1@http://{registry.address}/v2"
    assert [layer.diff_id for layer in image.layers] == DIFF_IDS
    assert image.layers[0] == image.layers[4]
    assert image.layers[1] == image.layers[3]
    for layer, content in zip(image.layers, LAYERS, strict=True):
        assert await read(client, image, layer) == content


@pytest.mark.parametrize(
    ("form", "media_type", "compression"),
    [
        ("v2s2", MANIFEST_TYPES[1], MediaType.TAR_GZIP),
        ("oci", MANIFEST_TYPES[0], MediaType.TAR_GZIP),
        ("oci", MANIFEST_TYPES[0], MediaType.TAR_ZSTD),
    ],
)
async def test_what_skopeo_pushes_is_read(
    client: RegistryClient,
    registry: RegistryServer,
    tmp_path: Path,
    form: str,
    media_type: str,
    compression: MediaType,
) -> None:
    write_image(tmp_path / "image", LAYERS)
    copy, algorithm = f"dir:{tmp_path}/copy", compression.value.rpartition("+")[2]
    compress = ("--dest-compress", "--dest-compress-format", algorithm, "--format", form)
    await run_program("skopeo", "copy", "--quiet", *compress, f"oci:{tmp_path / 'image'}:latest", copy)
    await registry.push(copy, f"skopeo/{algorithm}:{form}", "--preserve-digests")
    image = await client.image(ImageReference.parse(f"{registry.address}/skopeo/{algorithm}:{form}"), AMD64)
    assert image.manifest_media_type == media_type
    assert {layer.media_type for layer in image.layers} == {compression}
    assert [layer.diff_id for layer in image.layers] == DIFF_IDS
    for layer in image.layers:
        assert hashlib.sha256(await read(client, image, layer)).hexdigest() == layer.digest


async def test_what_umoci_makes_is_read(client: RegistryClient, registry: RegistryServer, tmp_path: Path) -> None:
    layout = f"{tmp_path}/layout"
    (tmp_path / "file").write_text("content")
    await run_program("umoci", "init", "--layout", layout)
    await run_program("umoci", "new", "--image", f"{layout}:1")
    await run_program("umoci", "insert", "--image", f"{layout}:1", f"{tmp_path}/file", "/file")
    await run_program("umoci", "insert", "--image", f"{layout}:1", "--whiteout", "/file")
    await run_program("umoci", "config", "--image", f"{layout}:1", "--config.env", "A=b", "--architecture", "amd64")
    await registry.push(f"oci:{layout}:1", "umoci:1")
    image = await client.image(ImageReference.parse(f"{registry.address}/umoci:1"), AMD64)
    assert len(image.layers) == 2
    assert json.loads(image.config)["config"]["Env"] == ["A=b"]
    for layer in image.layers:
        assert hashlib.sha256(await read(client, image, layer)).hexdigest() == layer.digest


async def test_an_index_gives_the_image_of_the_platform(client: RegistryClient, built: str) -> None:
    reference = ImageReference.parse(built)
    manifest = await client.manifest(reference)
    assert manifest.media_type in INDEX_TYPES
    images = await client.images(reference)
    assert [image.platform for image in images] == [AMD64, ARM64]
    assert [image.manifest_media_type for image in images] == [MANIFEST_TYPES[1], MANIFEST_TYPES[0]]
    assert [len(image.layers) for image in images] == [2, 2]
    assert await client.image(reference, AMD64) == images[0]
    assert await client.image(reference, Platform.parse("linux/arm64/v8")) == images[1]
    assert {image.reference.tag for image in images} == {"both"}
    with pytest.raises(
        PlatformMissingError, match=r"not there for linux/s390x but for linux/amd64, linux/arm64: give --pl"
    ):
        await client.image(reference, Platform.parse("linux/s390x"))


async def test_the_variant_that_only_the_index_has_counts(client: RegistryClient, registry: RegistryServer) -> None:
    reference = ImageReference.parse(f"{registry.address}/variants:1")
    config = b'{"os": "linux", "architecture": "arm", "rootfs": {"type": "layers", "diff_ids": []}}'
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": (await client.push_blob(reference, config)).oci,
                "size": len(config),
            },
            "layers": [],
        }
    ).encode()
    by_digest = replace(reference, digest=Digest(hashlib.sha256(manifest).hexdigest()))
    entry = {
        "mediaType": MANIFEST_TYPES[0],
        "digest": (await client.push_manifest(by_digest, manifest, MANIFEST_TYPES[0])).oci,
        "size": len(manifest),
        "platform": {"os": "linux", "architecture": "arm", "variant": "v6"},
    }
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [entry]}).encode()
    await client.push_manifest(reference, index, INDEX_TYPES[0])
    wanted = Platform.parse("linux/arm/v6")
    assert (await client.image(reference, wanted)).platform == wanted
    assert [image.platform for image in await client.images(reference)] == [wanted]


async def test_the_one_of_several_images_that_cannot_be_converted_is_named(client: RegistryClient, built: str) -> None:
    reference = ImageReference.parse(built)
    foreign = json.loads((await client.images(reference))[1].manifest)
    foreign["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    manifest = json.dumps(foreign).encode()
    by_digest = replace(reference, digest=Digest(hashlib.sha256(manifest).hexdigest()))
    windows = {
        "mediaType": MANIFEST_TYPES[0],
        "digest": (await client.push_manifest(by_digest, manifest, MANIFEST_TYPES[0])).oci,
        "size": len(manifest),
        "platform": {"os": "windows", "architecture": "amd64"},
    }
    inner = await client.manifest(reference)
    others = {"mediaType": inner.media_type, "digest": inner.digest.oci, "size": len(inner.content)}
    mixed = replace(reference, tag="mixed")
    await pushed_index(client, mixed, windows, others)
    with pytest.raises(
        UnsupportedImageError, match=r"built:mixed \(windows/amd64, sha256:.*layer 1 is a foreign layer"
    ):
        await client.images(mixed)
    assert (await client.image(mixed, AMD64)).platform == AMD64


async def pushed_index(client: RegistryClient, reference: ImageReference, *entries: dict[str, object]) -> str:
    """Push an index under its digest, and under the reference's tag; return the digest."""
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": entries}).encode()
    by_digest = replace(reference, digest=Digest(hashlib.sha256(index).hexdigest()))
    await client.push_manifest(by_digest, index, INDEX_TYPES[0])
    return (await client.push_manifest(reference, index, INDEX_TYPES[0])).oci


async def test_an_index_may_name_indexes(client: RegistryClient, built: str) -> None:
    """As in image-index.md; one of them may be of something that is no image at all."""
    reference = ImageReference.parse(built)
    outer = replace(reference, tag="outer")
    inner = await client.manifest(reference)
    entry = {"mediaType": inner.media_type, "digest": inner.digest.oci, "size": len(inner.content)}
    nothing = await pushed_index(client, replace(reference, tag="nothing"))
    empty = {"mediaType": INDEX_TYPES[0], "digest": nothing, "size": 1}

    await pushed_index(client, outer, empty, entry)
    assert (await client.image(outer, ARM64)).manifest == (await client.image(reference, ARM64)).manifest
    assert [image.platform for image in await client.images(outer)] == [AMD64, ARM64]

    await pushed_index(client, outer, empty)
    with pytest.raises(UnsupportedImageError, match="names no image, nor do the indexes in it"):
        await client.images(outer)


async def test_an_image_of_another_platform_is_refused(client: RegistryClient, registry: RegistryServer) -> None:
    reference = ImageReference.parse(f"{registry.address}/layers:1")
    with pytest.raises(
        PlatformMissingError, match="is for linux/amd64, not for linux/arm64: give --platform linux/amd64"
    ):
        await client.image(reference, ARM64)


async def test_an_image_is_found_by_its_digest(client: RegistryClient, registry: RegistryServer) -> None:
    tagged = await client.image(ImageReference.parse(f"{registry.address}/layers:1"), AMD64)
    reference = ImageReference.parse(f"{registry.address}/layers@{tagged.manifest_digest.oci}")
    assert (await client.image(reference, AMD64)).layers == tagged.layers


async def test_a_missing_image_suggests_tags(client: RegistryClient, registry: RegistryServer) -> None:
    with pytest.raises(ImageMissingError, match=r"layers:11: .*MANIFEST_UNKNOWN.*the repository has 1"):
        await client.manifest(ImageReference.parse(f"{registry.address}/layers:11"))
    with pytest.raises(ImageMissingError, match=r"nothing/here:latest.*: check the name"):
        await client.manifest(ImageReference.parse(f"{registry.address}/nothing/here"))
    with pytest.raises(ImageMissingError, match=f"blob sha256:{'a' * 64}"):
        [
            piece
            async for piece in client.blob(ImageReference.parse(f"{registry.address}/layers:1"), Digest("a" * 64), 5)
        ]


async def test_tags_are_listed(client: RegistryClient, registry: RegistryServer) -> None:
    assert await client.tags(ImageReference.parse(f"{registry.address}/layers")) == ["1"]


async def test_an_image_can_be_pushed(client: RegistryClient, registry: RegistryServer, tmp_path: Path) -> None:
    source = await client.image(ImageReference.parse(f"{registry.address}/layers:1"), AMD64)
    target = ImageReference.parse(f"{registry.address}/pushed/here:1")
    for content in (*LAYERS, source.config):
        digest = await client.push_blob(target, content)
        assert digest == await client.push_blob(target, content)
    assert await client.push_manifest(target, source.manifest, source.manifest_media_type) == source.manifest_digest
    assert (await client.image(target, AMD64)).layers == source.layers
    await run_program(
        "skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{target.name}", f"dir:{tmp_path}/copy"
    )


async def test_a_registry_that_is_not_there_is_named(client: RegistryClient) -> None:
    with pytest.raises(
        RegistryUnavailableError, match=r"127.0.0.1:1 cannot be reached: .*check its name and that it runs"
    ):
        await client.manifest(ImageReference.parse("127.0.0.1:1/x"))


async def test_a_registry_has_an_address_of_the_newer_protocol(
    client: RegistryClient, registry: RegistryServer, tmp_path: Path
) -> None:
    async with RegistryServer.run(tmp_path / "server", host="[::1]") as server:
        source = await client.image(ImageReference.parse(f"{registry.address}/layers:1"), AMD64)
        target = ImageReference.parse(f"{server.address}/x:1")
        for content in (*LAYERS, source.config):
            await client.push_blob(target, content)
        await client.push_manifest(target, source.manifest, source.manifest_media_type)
        image = await client.image(target, AMD64)
        assert await read(client, image, image.layers[0]) == LAYERS[0]
