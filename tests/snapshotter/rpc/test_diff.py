"""The differ: what it makes a layer of, and what it leaves to containerd's own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from grpclib.server import Server

from harness.s3 import S3Access, s3_client
from services.common.descriptor import ThinDescriptor
from services.common.unix_socket import listen
from services.node.store import NodeStore
from services.snapshotter.proto.types_pb2 import Mount
from services.snapshotter.settings import RemoteSnapshots
from tests.snapshotter.conftest import Snapshotters
from tests.support.containerd import ContainerdClient, mounted, option
from tests.support.content_store import UNCOMPRESSED, Content, Leases
from tests.support.repositories import DIFF_ID, Repository, thin_json

CONTAINER = "9ff4d257da4b6bbba0007f9ba2a6785d39b76b0e5dc767cf9219c4f34dfadb96"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
TAR = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture
async def content(snapshotters: Snapshotters) -> AsyncIterator[Content]:
    """The content store of the snapshotter's containerd."""
    leases = Leases()
    content = Content(leases.names)
    server = Server([content, leases])
    with listen(snapshotters.settings.containerd, setting="TEST") as listener:
        await server.start(sock=listener)
        yield content
        server.close()


@pytest.fixture
async def client(snapshotters: Snapshotters, bucket: S3Access) -> AsyncIterator[ContainerdClient]:
    """A client of a snapshotter that uploads."""
    async with (
        NodeStore(settings=bucket.settings) as store,
        Snapshotters(snapshotters.settings, store).running() as client,
    ):
        yield client


def _write(mount: Mount, **files: str) -> None:
    for name, text in files.items():
        Path(option(mount, "upperdir"), name).write_text(text)


async def _stored(bucket: S3Access) -> set[str]:
    async with s3_client(bucket) as client:
        found = await client.list_objects_v2(Bucket=bucket.bucket)
        return {item["Key"].removeprefix("sha256/") for item in found.get("Contents", ())}


async def _declined(client: ContainerdClient, left: Mount, right: Mount, media_type: str = "") -> None:
    with pytest.raises(GRPCError) as error:
        await client.diff([left], [right], media_type=media_type)
    assert error.value.status is Status.UNIMPLEMENTED


@pytest.fixture
async def thin(client: ContainerdClient, repository: Repository) -> ThinDescriptor:
    """The descriptor of an image `thin`."""
    content = thin_json(repository.publish("base", {"base": "1"}))
    await client.layer("thin", "", {"thin.json": content})
    return ThinDescriptor.parse(content, where="thin")


async def test_unpacking_is_left_to_containerd(client: ContainerdClient) -> None:
    with pytest.raises(GRPCError) as error:
        await client.apply(await client.prepare("moby/1/extract"))
    assert error.value.status is Status.UNIMPLEMENTED


async def test_a_commit_of_a_container(
    client: ContainerdClient, thin: ThinDescriptor, content: Content, bucket: S3Access
) -> None:
    container = await client.container(CONTAINER, "thin")
    _write(container, new="x")
    view = await client.view(f"moby/5/{CONTAINER}-init-parent-view-1", f"moby/3/{CONTAINER}-init")
    layer = await client.diff([view], [container])
    assert layer.media_type == GZIP
    descriptor = content.descriptor(layer.digest)
    assert descriptor.layers[:-1] == thin.layers
    # The init layer is no part of the image.
    assert {part.digest for part in descriptor.layers[1:]} == await _stored(bucket)
    assert len(descriptor.layers) == 2
    # Debian's containerd loses the namespace, which is in every key, too.
    namespace, data, labels = content.blobs[layer.digest]
    assert (namespace, len(data), set(labels)) == ("moby", layer.size, {UNCOMPRESSED})
    # The same once more, as a build does: labels come on top.
    assert await client.diff([view], [container], labels={"buildkit": "1"}, namespace="moby") == layer
    assert content.blobs[layer.digest][2]["buildkit"] == "1"
    _write(container, more="y")
    other = await client.diff([view], [container], media_type=GZIP, namespace="other")
    assert content.blobs[other.digest][0] == "other"
    # It runs at once, though it is not published.
    await client.layer("committed", f"moby/3/{CONTAINER}-init", content.files(other.digest))
    with mounted(await client.container("1" * 64, "committed")) as root:
        assert sorted(path.name for path in root.iterdir()) == [".dockerenv", "base", "more", "new"]


async def test_a_container_without_changes(client: ContainerdClient, thin: ThinDescriptor, content: Content) -> None:
    assert thin.layers
    container = await client.container(CONTAINER, "thin")
    view = await client.view("moby/5/view", f"moby/3/{CONTAINER}-init")
    assert content.files((await client.diff([view], [container])).digest) == {}


async def test_the_steps_of_a_build_are_uploaded_once(
    client: ContainerdClient, thin: ThinDescriptor, content: Content, bucket: S3Access
) -> None:
    for number, parent in enumerate(("thin", "step-0", "step-1")):
        await client.layer(f"step-{number}", parent, {f"step-{number}": "x"})
    names = ["thin", "step-0", "step-1", "step-2"]
    views = [await client.view(f"moby/9/{name}-view", name) for name in names]
    # All at the same time, as BuildKit asks.
    layers = await asyncio.gather(*(client.diff([views[n]], [views[n + 1]], media_type=GZIP) for n in range(3)))
    descriptors = [content.descriptor(layer.digest) for layer in layers]
    assert [len(descriptor.layers) for descriptor in descriptors] == [2, 3, 4]
    assert all(one.layers == descriptors[2].layers[: len(one.layers)] for one in (thin, *descriptors))
    assert {part.digest for part in descriptors[2].layers[1:]} == await _stored(bucket)
    # Another build finds them, though they are in the store no more.
    for digest in await _stored(bucket):
        async with s3_client(bucket) as s3:
            await s3.delete_object(Bucket=bucket.bucket, Key=f"sha256/{digest}")
    assert (await client.diff([views[2]], [views[3]])).digest == layers[2].digest
    assert await _stored(bucket) == set()


async def test_files_beside_the_descriptor_are_uploaded(
    client: ContainerdClient, repository: Repository, content: Content
) -> None:
    base = repository.publish("base", {"base": "1"})
    await client.layer("thin", "", {"thin.json": thin_json(base), "beside": "x"})
    await client.layer("step", "thin", {"step": "x"})
    views = [await client.view(f"moby/9/{name}-view", name) for name in ("thin", "step")]
    descriptor = content.descriptor((await client.diff([views[0]], [views[1]])).digest)
    assert len(descriptor.layers) == 3


async def test_a_thin_image_above_layers_that_are_in_repositories(
    snapshotters: Snapshotters, repository: Repository, content: Content, bucket: S3Access
) -> None:
    base, other = (repository.publish(name, {name: "1"}) for name in ("base", "other"))
    labels = {
        "containerd.io/snapshot.ref": f"sha256:{DIFF_ID}",
        "containerd.io/snapshot/cri.layer-digest": f"sha256:{base.digest}",
    }
    settings = snapshotters.settings.model_copy(update={"remote": RemoteSnapshots.CRI})
    async with (
        NodeStore(settings=bucket.settings) as store,
        Snapshotters(settings, store).running() as client,
    ):
        with pytest.raises(GRPCError, match="there is nothing to unpack"):
            await client.prepare("k8s.io/1/remote", labels=labels)
        # Its changes are thin layers; those of the image below it are not.
        await client.layer("thin", "k8s.io/1/remote", {"thin.json": thin_json(other)})
        containers = {}
        for image in ("thin", "k8s.io/1/remote"):
            container = await client.prepare(f"{image}-container", image)
            _write(container, new="x")
            containers[image] = await client.view(f"{image}-view", image), container
        await _declined(client, *containers["k8s.io/1/remote"])
        left, right = containers["thin"]
        layers = content.descriptor((await client.diff([left], [right], namespace="k8s.io")).digest).layers
        assert [layer.digest for layer in layers[:-1]] == [other.digest]
        assert {layers[-1].digest} == await _stored(bucket)


@pytest.mark.usefixtures("content", "thin")
async def test_what_is_declined(client: ContainerdClient, repository: Repository) -> None:
    await client.layer("regular", "", {"file": "x"})
    await client.layer("above", "regular", {"file": "y"})
    regular, above = await client.view("moby/1/regular", "regular"), await client.view("moby/2/above", "above")
    await _declined(client, regular, above)
    await _declined(client, regular, await client.prepare("moby/3/container", "regular"))
    thin = await client.view("moby/4/thin", "thin")
    container = await client.prepare("moby/5/container", "thin")
    _write(container, new="x")
    # Other types, other views, no view at all, several mounts, what is there no more.
    await _declined(client, thin, container, media_type="application/vnd.oci.image.layer.v1.tar+zstd")
    await _declined(client, container, container)
    await _declined(client, regular, container)
    await _declined(client, container, thin)
    with pytest.raises(GRPCError, match="not mounted for a snapshot of a thin image"):
        await client.diff([thin], [container, container])
    with pytest.raises(GRPCError, match="not mounted for a snapshot of a thin image"):
        await client.diff([], [])
    await client.remove("moby/5/container")
    await _declined(client, thin, container)
    # A container of a regular image has an ordinary file there.
    container = await client.prepare("moby/6/container", "regular")
    _write(container, **{"thin.json": thin_json(repository.url("some")).decode()})
    await _declined(client, regular, container)


@pytest.mark.parametrize("parent", ["", "regular", "thin"])
@pytest.mark.parametrize("media_type", ["", GZIP, TAR])
async def test_a_step_with_a_descriptor_is_a_layer_of_its_own_files(
    client: ContainerdClient,
    repository: Repository,
    thin: ThinDescriptor,
    content: Content,
    parent: str,
    media_type: str,
) -> None:
    """What is mounted for it is the image that the descriptor stands for: compared, it would be all of it."""
    assert thin.layers
    await client.layer("regular", "", {"regular": "x"})
    descriptor = thin_json(repository.publish("second", {"second": "x"}))
    files = {"thin.json": descriptor, "beside": bytes(3 << 20)}
    await client.layer("step", parent, files)
    left = [await client.view("moby/1/view", parent)]
    right = [await client.view("moby/2/view", "step")]
    layer = await client.diff(left, right, media_type=media_type)
    if not parent:
        # BuildKit names nothing there, where dockerd has an empty view.
        assert await client.diff([], right, media_type=media_type) == layer
    assert layer.media_type == (media_type or GZIP)
    assert content.files(layer.digest) == files
    assert len(content.blobs[layer.digest][1]) == layer.size


async def test_a_container_with_a_descriptor_is_committed_with_an_ordinary_file(
    client: ContainerdClient, repository: Repository, thin: ThinDescriptor, content: Content
) -> None:
    container = await client.container(CONTAINER, "thin")
    _write(container, **{"thin.json": thin_json(repository.url("some")).decode()})
    view = await client.view("moby/5/view", f"moby/3/{CONTAINER}-init")
    descriptor = content.descriptor((await client.diff([view], [container])).digest)
    assert descriptor.layers[:-1] == thin.layers


async def test_failures_have_their_reasons(
    snapshotters: Snapshotters, repository: Repository, content: Content, bucket: S3Access
) -> None:
    async def diff(client: ContainerdClient, key: str) -> None:
        container = await client.prepare(key, "thin")
        _write(container, new="x")
        await client.diff([await client.view(f"{key}-view", "thin")], [container])

    async with snapshotters.running() as client:
        await client.layer("thin", "", {"thin.json": thin_json(repository.publish("base", {"base": "1"}))})
        with pytest.raises(GRPCError, match="no object store is configured") as error:
            await diff(client, "moby/1/one")
        assert error.value.status is Status.FAILED_PRECONDITION
    async with (
        NodeStore(settings=bucket.settings) as store,
        Snapshotters(snapshotters.settings, store).running() as client,
    ):
        with pytest.raises(GRPCError, match="the key one has no namespace"):
            await diff(client, "one")
        snapshotters.settings.containerd.unlink()
        with pytest.raises(GRPCError, match="does not take the layer of a committed image") as error:
            await diff(client, "moby/2/two")
        assert error.value.status is Status.UNKNOWN
    assert content.blobs == {}
