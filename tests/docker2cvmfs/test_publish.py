"""Publications from a registry that misbehaves, and of layers of every size."""

import hashlib
import json
import os
import random
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from harness.s3 import s3_client
from services.common.repository_name import RepositoryName
from services.docker2cvmfs.commands import publish
from services.docker2cvmfs.conversion import Conversion
from services.docker2cvmfs.options import way_of
from services.registry.client import RegistryClient
from services.registry.errors import RegistryError
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from tests.docker2cvmfs.conftest import Site
from tests.support import fault_proxy as proxies
from tests.support.commands import docker2cvmfs
from tests.support.oci import push_image_of_blob, write_image
from tests.support.publisher import REPOSITORY, TOKEN
from tests.support.registries import impatient, run_program
from tests.support.registry_faults import Effect, Fault, FaultyRegistry, changed, cut, redirected, refused, stalled
from tests.support.tars import archive, member

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1 << 20
ALWAYS = 1000
LAYERS = [random.Random(number).randbytes(size) for number, size in enumerate((7 * MIB, 1000))]  # noqa: S311 - of a test
DIGESTS = [hashlib.sha256(layer).hexdigest() for layer in LAYERS]


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def images(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An image of a layer that is uploaded in parts, and one of a layer that is not.

    In one image a failure of either would cut the other's upload off, which the server may complete at any time after.
    """
    for layer, digest in zip(LAYERS, DIGESTS, strict=True):
        directory = tmp_path_factory.mktemp("publish") / "image"
        write_image(directory, [layer], tag="1")
        await site.registry.push(f"oci:{directory}:1", f"faulty:{digest[:8]}", "--preserve-digests")


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def nothing_stored(site: Site) -> None:
    async with s3_client(site.access) as client:
        for digest in DIGESTS:
            await client.delete_object(Bucket=site.access.bucket, Key=f"sha256/{digest}")


def _flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize("digest", DIGESTS, ids=["in-parts", "whole"])
@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (changed(_flipped), "does not have this digest: what the registry holds is damaged or forged"),
        (changed(lambda body: body[:-1]), "bytes, its image names"),
        (changed(lambda body: body + b"x"), "bytes, its image names"),
        (cut(300), "the connection to .* broke|the body ended after"),
        (stalled(300), "sent nothing for too long"),
        (refused(429), "too many requests"),
        (refused(500), "failing or overloaded"),
        (redirected("http://127.0.0.1:1/elsewhere"), "127.0.0.1:1 cannot be reached"),
        (redirected("{path}"), "more than 5 redirects"),
    ],
)
async def test_a_layer_that_cannot_be_had_leaves_nothing(
    site: Site, effect: Effect, said: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in site.access.environment.items():
        monkeypatch.setenv(name, value)
    fault = Fault(f"GET .*/blobs/sha256:{digest}", effect, times=ALWAYS)
    async with FaultyRegistry.before(site.registry.address, fault) as proxy:
        conversion = Conversion(
            reference=ImageReference.parse(f"{proxy.address}/faulty:{digest[:8]}"),
            platform=Platform.parse("linux/amd64"),
            options=impatient(read_timeout=2.0) if said == "sent nothing for too long" else impatient(),
        )
        with pytest.raises(RegistryError, match=rf"sha256:{digest} .*({said})"):
            await publish(conversion, RepositoryName(REPOSITORY), way=way_of(None, "bucket"), timeout=None)

    async with s3_client(site.access) as client:
        uploads = await client.list_multipart_uploads(Bucket=site.access.bucket)
        objects = await client.list_objects_v2(Bucket=site.access.bucket, Prefix=f"sha256/{digest}")
    assert uploads.get("Uploads", []) == []
    assert objects.get("Contents", []) == []


async def test_a_wrong_layer_is_the_registrys_failure(site: Site) -> None:
    digest = DIGESTS[1]
    fault = Fault(f"GET .*/blobs/sha256:{digest}", changed(_flipped))
    async with FaultyRegistry.before(site.registry.address, fault) as proxy:
        image = f"{proxy.address}/faulty:{digest[:8]}"
        arguments = (image, REPOSITORY, "--no-wait")
        ended = await docker2cvmfs("publish", "--insecure", *arguments, env=site.access.environment)
    assert ended.status == 3
    assert f"docker2cvmfs: blob sha256:{digest} of {image} does not have" in ended.errors


async def test_a_publisher_that_has_no_images_gets_the_layers_through_the_bucket(site: Site) -> None:
    env = {**site.access.environment, "DOCKER2CVMFS_TOKEN": TOKEN}
    earlier = proxies.Fault("^POST /v1/images ", times=ALWAYS, answer=proxies.Answer(404, "NotFound"))
    async with proxies.FaultProxy.before(site.publisher.url, earlier) as publisher:
        arguments = ("--insecure", site.image, REPOSITORY, "--publisher", publisher.endpoint, "--no-wait", "--json")
        ended = await docker2cvmfs("publish", *arguments, env=env)
        assert ended.status == 0, ended.errors
        outcomes = {layer["outcome"] for layer in json.loads(ended.out)["layers"]}
        assert outcomes <= {"uploaded", "already uploaded"}
        assert publisher.seen("^POST /v1/images ") == 1


async def test_many_layers_are_uploaded_once(site: Site, tmp_path: Path) -> None:
    layers = [archive(member(b"file", b"%d" % number)) for number in range(100)]
    write_image(tmp_path / "image", [*layers, layers[0]], tag="1")
    await site.registry.push(f"oci:{tmp_path / 'image'}:1", "many:1", "--preserve-digests")
    for expected, blobs in (("uploaded", 100), ("already uploaded", 0)):
        async with FaultyRegistry.before(site.registry.address) as proxy:
            arguments = (f"{proxy.address}/many:1", REPOSITORY, "--no-wait", "--json")
            ended = await docker2cvmfs("publish", "--insecure", *arguments, env=site.access.environment)
        assert ended.status == 0, ended.errors
        outcomes = [layer["outcome"] for layer in json.loads(ended.out)["layers"]]
        assert outcomes == [expected] * 100
        # Besides the layers the configuration is read.
        assert len(proxy.seen("GET .*/blobs/")) == blobs + 1


async def test_a_large_layer_needs_no_more_memory_than_a_small_one(site: Site) -> None:
    peaks = []
    # The small one has more than the parts that are in memory at a time, too: how many there are is the server's speed.
    for size in (160 * MIB, 512 * MIB):
        name = f"{site.registry.address}/sparse:{size}"
        digest = site.registry.store_sparse("sparse", size)
        async with RegistryClient(options=impatient()) as client:
            await push_image_of_blob(client, ImageReference.parse(name), digest, size)
        program = (sys.executable, "-m", "harness.bench.peak", "publish", "--insecure", "--no-wait", name, REPOSITORY)
        peaks.append(int((await run_program(*program, env={**os.environ, **site.access.environment})).split()[-1]))
    assert peaks[1] < 250 * MIB
    assert peaks[1] - peaks[0] < 80 * MIB
