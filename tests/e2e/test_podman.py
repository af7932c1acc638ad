"""podman runs, commits, builds, saves, pushes and pulls images of a store in a repository, which it can only read."""

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import run
from harness.registry import Registry
from services.common.archive.model import LayerArchive
from services.common.image_name import ImageName
from services.common.image_outputs import ImageOutputs, PodmanOutput
from services.common.layout import LayerLayout
from services.repository.directory.repository import DirectoryRepository
from services.repository.images import ImageDocuments
from services.repository.interface import Repository
from services.repository.native.trust.keyring import KeyFiles
from tests.support.cvmfs_client import ClientView
from tests.support.images import change, image_of_layers
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.podman import Podman, seen_by_clients, system_tree
from tests.support.publisher import make_layer
from tests.support.rootless import rootless_podman

pytestmark = pytest.mark.asyncio(loop_scope="session")

_NAME = "registry.example.org/ns/tool:v1"
_STORE = Path("/cvmfs", NATIVE_NAME, "podmanStore")


@dataclass(frozen=True)
class Image:
    """An image of two layers: the second deletes and changes what is in the first."""

    documents: ImageDocuments
    layers: Sequence[LayerArchive]
    layout: Path
    """The same as an OCI layout."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Make the image."""
    directory = tmp_path_factory.mktemp("image")
    system_tree(directory / "base.tree")
    base = make_layer(directory, "base", {"gone": "gone", "hidden/old": "old", "kept": "kept"})
    top = directory / "top.tree"
    (top / "hidden").mkdir(parents=True)
    os.setxattr(top / "hidden", "trusted.overlay.opaque", b"y")
    os.mknod(top / "gone", stat.S_IFCHR, os.makedev(0, 0))
    layers = [base, make_layer(directory, "top", {"hidden/new": "new", "kept": "changed"})]
    config = {"Cmd": ["sh", "-c", "cat /hidden/new /kept; ls /hidden"], "Env": ["GREETING=hello world"]}
    outputs = ImageOutputs(podman=PodmanOutput())
    documents = image_of_layers(_NAME, ("amd64", layers), outputs=outputs, config=config)
    return Image(documents, layers, _write_layout(directory / "oci", documents, layers))


def _write_layout(directory: Path, documents: ImageDocuments, layers: Sequence[LayerArchive]) -> Path:
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    manifest = documents.files[f"{documents.name.path}/manifest.json"]
    digest = _put(blobs, manifest)
    _put(blobs, documents.files[f"{documents.name.path}/config.json"])
    for layer in layers:
        (blobs / layer.digest).hardlink_to(layer.path)
    described = {"mediaType": json.loads(manifest)["mediaType"], "digest": f"sha256:{digest}", "size": len(manifest)}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    return directory


def _put(blobs: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return digest


@dataclass(frozen=True)
class Site:
    """A repository that has the image, and a podman that sees it."""

    podman: Podman
    repository: Repository
    refresh: Callable[[], None]
    """Shows the newest revision."""


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["directory", "native"])
async def site(
    request: pytest.FixtureRequest, image: Image, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """Both kinds of repositories."""
    directory = tmp_path_factory.mktemp("podman")
    root = directory / "repository"
    async with AsyncExitStack() as stack:
        if request.param == "native":
            keys = KeyFiles(directory / "keys", NATIVE_NAME)
            keys.complete(now=datetime.now(UTC))
            native = NativeSite(root=directory / "native", state=directory / "state", keys=keys)
            native.create()
            repository: Repository = await stack.enter_async_context(native.opened())
            view = ClientView(stack.enter_context(native.reader()), root)
            refresh = view.update
        else:
            threads = stack.enter_context(ThreadPoolExecutor(4))
            repository = await stack.enter_async_context(
                DirectoryRepository(name=NATIVE_NAME, root=root, layout=LayerLayout.FLAT, threads=threads)
            )
            refresh = lambda: None  # noqa: E731
        await change(repository, layers=image.layers, put=[image.documents])
        refresh()
        stack.enter_context(seen_by_clients(root, NATIVE_NAME))
        yield Site(Podman(directory / "user", [_STORE]), repository, refresh)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    """An empty registry."""
    registry = Registry(tmp_path_factory.mktemp("registry") / "registry")
    try:
        await registry.start()
        yield registry
    finally:
        await registry.close()


async def test_an_image_runs_with_its_deletions(site: Site) -> None:
    assert (await site.podman("run", "--rm", _NAME)).text == "newchangednew"
    said = await site.podman("run", "--rm", _NAME, "sh", "-c", "echo $GREETING; ls /gone || echo deleted")
    assert said.text == "hello world\ndeleted"


async def test_images_are_listed_and_found_by_their_digests(site: Site) -> None:
    (row,) = json.loads((await site.podman("image", "ls", "--format=json")).text)
    assert (row["Names"], row["ReadOnly"]) == ([_NAME], True)
    name, said = ImageName(_NAME), await site.podman.inspect(_NAME)
    by_digest = f"{name.registry}/{name.repository}@{said['Digest']}"
    assert said["RepoDigests"] == [by_digest]
    assert (await site.podman("run", "--rm", by_digest, "cat", "/kept")).text == "changed"


async def test_containers_are_committed_and_images_built(site: Site, tmp_path: Path) -> None:
    await site.podman("run", "--name=changed", _NAME, "sh", "-c", "echo mine >/mine; rm /kept")
    await site.podman("commit", "changed", "localhost/committed")
    said = await site.podman("run", "--rm", "localhost/committed", "sh", "-c", "cat /mine; ls /kept || echo no")
    assert said.text == "mine\nno"
    (tmp_path / "Containerfile").write_text(f"FROM {_NAME}\nRUN echo built >/built\n")
    await site.podman("build", "--pull=never", "--network=none", "--tag=localhost/built", tmp_path)
    assert (await site.podman("run", "--rm", "localhost/built", "cat", "/built", "/kept")).text == "built\nchanged"
    await site.podman("rm", "changed")
    await site.podman("rmi", "localhost/committed", "localhost/built")


async def test_images_are_saved_and_pushed_as_they_were_built(
    site: Site, image: Image, registry: Registry, tmp_path: Path
) -> None:
    original = [layer.diff_id for layer in image.layers]
    await site.podman("save", "--output", tmp_path / "saved.tar", _NAME)
    assert _saved_layers(tmp_path / "saved.tar") == original
    pushed = f"{registry.address}/ns/pushed:v1"
    await site.podman("push", "--quiet", "--tls-verify=false", _NAME, pushed)
    again = tmp_path / "pushed.tar"
    await run(
        "skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{pushed}", f"docker-archive:{again}:{_NAME}"
    )
    assert _saved_layers(again) == original


def _saved_layers(archive: Path) -> list[str]:
    """Return the SHA-256 of each layer in an archive of `docker save`'s form, base first."""
    with tarfile.open(archive) as saved:

        def read(name: str) -> bytes:
            content = saved.extractfile(name)
            assert content is not None
            return content.read()

        (manifest,) = json.loads(read("manifest.json"))
        return [hashlib.sha256(read(layer)).hexdigest() for layer in manifest["Layers"]]


@pytest.mark.parametrize("site", ["native"], indirect=True)
@pytest.mark.usefixtures("site")
async def test_a_user_without_privileges_runs_commits_and_builds() -> None:
    """By fuse-overlayfs, which sees the deletions that are marked for everybody."""
    with rootless_podman([_STORE]) as podman:
        assert (await podman("run", "--rm", _NAME)).text == "newchangednew"
        (row,) = json.loads((await podman("image", "ls", "--format=json")).text)
        assert (row["Names"], row["ReadOnly"]) == ([_NAME], True)
        name, said = ImageName(_NAME), await podman.inspect(_NAME)
        by_digest = f"{name.registry}/{name.repository}@{said['Digest']}"
        command = "echo mine >/mine; rm /kept; ls /gone || echo deleted"
        assert (await podman("run", "--name=changed", by_digest, "sh", "-c", command)).text == "deleted"
        await podman("commit", "changed", "localhost/committed")
        seen = await podman("run", "--rm", "localhost/committed", "sh", "-c", "cat /mine; ls /kept || echo no")
        assert seen.text == "mine\nno"
        containerfile = f"FROM {_NAME}\nRUN echo built >/built\n".encode()
        options = ("--pull=never", "--network=none", "--tag=localhost/built")
        await podman("build", *options, "-", input=containerfile)
        assert (await podman("run", "--rm", "localhost/built", "cat", "/built", "/kept")).text == "built\nchanged"


async def test_nothing_is_pulled_that_is_in_the_store(site: Site, image: Image, registry: Registry) -> None:
    pushed = f"{registry.address}/ns/tool:v1"
    await run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{image.layout}", f"docker://{pushed}")
    before = set(site.podman.root.glob("overlay/*"))
    await site.podman("pull", "--quiet", "--tls-verify=false", pushed)
    assert (await site.podman.inspect(pushed))["Id"] == (await site.podman.inspect(_NAME))["Id"]
    assert set(site.podman.root.glob("overlay/*")) == before
    await site.podman("rmi", pushed)
