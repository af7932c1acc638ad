"""Thin images run: order, deletions, two repositories, waiting, and repositories whose clients die or hang."""

import asyncio
import io
import json
import os
import signal
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import CommandError
from harness.containers import run_container
from harness.demo.playground import write_playground
from harness.engine import Engine
from harness.images import write_image
from harness.node import Node
from harness.processes import wait_until
from harness.stratum0 import Stratum0
from harness.trees import CONTAINER_EXCLUSIONS, differences, read_directory
from services.common.descriptor import ThinDescriptor, ThinLayer
from services.common.layout import LayerLayout
from tests.support import cvmfs2, fuse
from tests.support.e2e import BASE, REPOSITORY, THIN, Images, Nodes
from tests.support.edits import make_edits
from tests.support.mounts import mounts_below
from tests.support.repositories import Repository, digest_of, newer_thin_json

pytestmark = pytest.mark.asyncio(loop_scope="session")

OTHER = "other.example.org"
WAIT = 2.5


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def thin_node(nodes: Nodes) -> AsyncIterator[Node]:
    """A node that may use two repositories and waits little."""
    node = await nodes.start(
        driver_env={"GRAPHDRIVER_REPOSITORIES": f"{REPOSITORY},{OTHER}", "GRAPHDRIVER_PUBLISH_WAIT": str(WAIT)}
    )
    yield node
    assert (await node.engine.docker("ps", "--all", "--quiet")).text == ""
    await node.stop()
    assert mounts_below(node.directory) == []


@pytest.fixture(scope="module")
def other(stratum0: Stratum0) -> Repository:
    """A second repository, made by hand."""
    return Repository(stratum0.cvmfs_root, OTHER)


def _layer(directory: Path, name: str, files: dict[str, str], whiteouts: tuple[str, ...] = ()) -> Path:
    """Write a layer tar."""
    path = directory / f"{name}.tar"
    with tarfile.open(path, "w") as tar:
        for parent_of in sorted({str(parent) for file in files for parent in Path(file).parents} - {"."}):
            member = tarfile.TarInfo(parent_of)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for file, content in files.items():
            member = tarfile.TarInfo(file)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
        for whiteout in whiteouts:
            place = Path(whiteout)
            name_of = ".wh..wh..opq" if whiteout.endswith("/") else f".wh.{place.name}"
            parent = place if whiteout.endswith("/") else place.parent
            tar.addfile(tarfile.TarInfo(str(parent / name_of)))
    return path


async def _load(node: Node, images: Images, name: str, *layers: ThinLayer) -> None:
    images.write_thin(name, *layers)
    await images.load_thin(node.engine, name)


async def _run(engine: Engine, image: str, script: str, *options: str) -> str:
    return (await engine.docker("run", "--rm", "--network=none", *options, image, "sh", "-c", script)).text


async def _status(engine: Engine) -> dict[str, str]:
    pairs: list[list[str]] = json.loads((await engine.docker("info", "--format={{json .DriverStatus}}")).text)
    return {key: value for key, value in pairs}  # noqa: C416 - a list of lists, as far as types go


def _thin(url: str) -> ThinLayer:
    return ThinLayer(digest=url.removesuffix("/layerfs")[-64:], url=url)


# What a container sees


async def test_a_thin_container_sees_what_a_regular_one_sees(thin_node: Node) -> None:
    trees = []
    for image in (THIN, BASE):
        container = await run_container(thin_node.engine, image)
        trees.append(read_directory(container.root, exclusions=CONTAINER_EXCLUSIONS))
        await thin_node.engine.docker("rm", "--force", container.id)
    assert len(trees[0]) > 500
    assert differences(*trees, names=("thin", "regular")) == []
    assert b"thin.json" not in trees[0]


async def test_later_layers_hide_earlier_ones(thin_node: Node, images: Images, tmp_path: Path) -> None:
    layers = [images.published.thin]
    for name in ("one", "two", "three"):
        names = ["one", "two", "three"][: ["one", "two", "three"].index(name) + 1]
        layers.append(await images.publish(_layer(tmp_path, name, {f"order/from-{lower}": name for lower in names})))
    await _load(thin_node, images, "test:order", *layers)
    assert await _run(thin_node.engine, "test:order", "cd /order; tail -n +1 *") == (
        "==> from-one <==\nthree\n==> from-three <==\nthree\n==> from-two <==\nthree"
    )
    # The same layers in another order.
    await _load(thin_node, images, "test:other-order", layers[0], layers[3], layers[2], layers[1])
    assert await _run(
        thin_node.engine, "test:other-order", "cat /order/from-one /order/from-two /order/from-three"
    ) == ("onetwothree")
    await thin_node.engine.docker("rmi", "test:order", "test:other-order")


async def test_deletions_of_published_layers_hold(
    thin_node: Node, images: Images, overlay2: Engine, tmp_path: Path
) -> None:
    parts = [
        _layer(tmp_path, "below", {"m/gone": "x", "m/kept": "x", "m/o/old": "x", "m/d/old": "x", "m/f": "x"}),
        _layer(tmp_path, "deleting", {"m/o/new": "y", "m/d": "a file now"}, ("m/gone", "m/o/", "etc/debian_version")),
        _layer(tmp_path, "above", {"m/gone": "again"}, ("m/f",)),
    ]
    layers = [await images.publish(part) for part in parts]
    await _load(thin_node, images, "test:masks", images.published.thin, *layers)
    write_image(tmp_path / "regular.tar", name="test:masks", layers=[images.base, *parts])
    await overlay2.docker("load", input=tmp_path / "regular.tar")
    trees = []
    for engine in (thin_node.engine, overlay2):
        container = await run_container(engine, "test:masks")
        trees.append(read_directory(container.root / "m"))
        assert not (container.root / "etc/debian_version").exists()
        await engine.docker("rm", "--force", container.id)
        await engine.docker("rmi", "test:masks")
    assert differences(*trees, names=("thin", "overlay2")) == []
    assert set(trees[0]) == {b".", b"gone", b"kept", b"o", b"o/new", b"d"}


async def test_layers_of_two_repositories(thin_node: Node, images: Images, other: Repository) -> None:
    url = other.publish("elsewhere", {"elsewhere": "from another repository"})
    await _load(thin_node, images, "test:two", images.published.thin, _thin(url))
    container = await run_container(thin_node.engine, "test:two")
    assert (container.root / "elsewhere").read_text() == "from another repository"
    assert (await _status(thin_node.engine))["Repositories in use"] == f"{OTHER} (1), {REPOSITORY} (1)"
    await thin_node.engine.docker("rm", "--force", container.id)
    assert (await _status(thin_node.engine))["Repositories in use"] == "none"
    await thin_node.engine.docker("rmi", "test:two")


async def test_a_converters_layers_run_as_they_are(thin_node: Node, images: Images, other: Repository) -> None:
    """unpacked.cern.ch: nothing published by the suite, no sidecars."""
    url = other.publish("converted", {"converted": "by DUCC"}, layout=LayerLayout.DUCC)
    (other.tree("converted").parent / "layer.json").unlink()
    await _load(thin_node, images, "test:converted", images.published.thin, _thin(url))
    assert await _run(thin_node.engine, "test:converted", "cat /converted") == "by DUCC"
    await thin_node.engine.docker("rmi", "test:converted")


async def test_operations_on_a_thin_container(
    thin_node: Node, images: Images, overlay2: Engine, tmp_path: Path
) -> None:
    """diff, ps -s, inspect -s, cp, export: what a regular container under overlay2 gives."""
    write_playground(tmp_path / "playground.tar")
    layer = await images.publish(tmp_path / "playground.tar")
    await _load(thin_node, images, "test:operations", images.published.thin, layer)
    write_image(tmp_path / "regular.tar", name="test:operations", layers=[images.base, tmp_path / "playground.tar"])
    await overlay2.docker("load", input=tmp_path / "regular.tar")
    found = []
    (tmp_path / "file").write_text("copied")
    for engine in (thin_node.engine, overlay2):
        container = await run_container(engine, "test:operations")
        await make_edits(container.pid)
        await engine.docker("cp", tmp_path / "file", f"{container.id}:/playground/copied")
        diff = sorted((await engine.docker("diff", container.id)).text.splitlines())
        size = (await engine.docker("inspect", "--size", "--format={{.SizeRw}}", container.id)).text
        copied = await engine.docker("cp", f"{container.id}:/playground/untouched", "-")
        await engine.docker("export", container.id, output=tmp_path / "export.tar")
        with tarfile.open(tmp_path / "export.tar", errors="surrogateescape") as tar:
            exported = sorted((member.name, member.type, member.mode, member.size) for member in tar
                              if member.name.startswith(("playground", "usr/bin")))  # fmt: skip
        found.append((diff, size, len(copied.stdout), exported))
        await engine.docker("rm", "--force", container.id)
        await engine.docker("rmi", "test:operations")
    assert found[0] == found[1]
    assert len(found[0][0]) > 50


async def test_local_layers_stand_on_a_thin_image(thin_node: Node, images: Images, tmp_path: Path) -> None:
    thin = _layer(tmp_path, "thin", {"thin.json": ThinDescriptor.of(images.published.thin).encode().decode()})
    local = _layer(tmp_path, "local", {"local": "layer"}, ("etc/debian_version",))
    write_image(tmp_path / "mixed.tar", name="test:mixed", layers=[thin, local])
    await thin_node.engine.docker("load", input=tmp_path / "mixed.tar")
    assert await _run(thin_node.engine, "test:mixed", "cat /local; test ! -e /etc/debian_version && echo gone") == (
        "layergone"
    )
    await thin_node.engine.docker("rmi", "test:mixed")


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


async def test_the_descriptor_is_saved_and_not_seen(thin_node: Node, tmp_path: Path) -> None:
    assert await _run(thin_node.engine, THIN, "ls -a / | grep -c thin.json; true") == "0"
    await thin_node.engine.docker("save", THIN, output=tmp_path / "saved.tar")
    assert (tmp_path / "saved.tar").stat().st_size < 100_000
    with tarfile.open(tmp_path / "saved.tar") as archive:
        [manifest] = json.loads(_read(archive, "manifest.json"))
        [layer] = manifest["Layers"]
        with tarfile.open(fileobj=io.BytesIO(_read(archive, layer))) as inner:
            assert inner.getnames() == ["thin.json"]
            size = inner.getmember("thin.json").size
    assert (await thin_node.engine.docker("image", "inspect", "--format={{.Size}}", THIN)).text == str(size)


async def test_inspection_names_the_published_layers(thin_node: Node, images: Images) -> None:
    container = await run_container(thin_node.engine, THIN)
    data = json.loads((await thin_node.engine.docker("inspect", "--format={{json .GraphDriver}}", container.id)).text)
    assert json.loads(data["Data"]["ThinLayers"]) == [images.published.thin.url]
    await thin_node.engine.docker("rm", "--force", container.id)


# What is refused, or waited for


async def test_a_repository_that_is_not_allowed_is_refused(thin_node: Node, images: Images) -> None:
    digest = digest_of("secret")
    await _load(thin_node, images, "test:secret", _thin(f"cvmfs://secret.example.org/{digest}"))
    with pytest.raises(CommandError, match=r"secret\.example\.org is not among those allowed here \(other\."):
        await _run(thin_node.engine, "test:secret", "true")
    # The container that did not start can be removed, and so can the image.
    await thin_node.engine.docker("container", "prune", "--force")
    await thin_node.engine.docker("rmi", "test:secret")


async def test_a_layer_that_is_not_published_is_waited_for_and_named(
    thin_node: Node, images: Images, other: Repository
) -> None:
    url = other.url("never published")
    await _load(thin_node, images, "test:never", images.published.thin, _thin(url))
    start = time.monotonic()
    with pytest.raises(CommandError, match=rf"1 of 2 layers did not show within {WAIT} s, the first one is {url}: ask"):
        await _run(thin_node.engine, "test:never", "true")
    # The last look is the last that ends within the time.
    assert time.monotonic() - start > WAIT / 2
    await thin_node.engine.docker("container", "prune", "--force")
    await thin_node.engine.docker("rmi", "test:never")


async def test_a_container_starts_when_its_layer_shows(thin_node: Node, images: Images, other: Repository) -> None:
    await _load(thin_node, images, "test:soon", images.published.thin, _thin(other.url("soon")))
    starting = asyncio.create_task(_run(thin_node.engine, "test:soon", "cat /soon"))
    await asyncio.sleep(0.5)
    assert not starting.done()
    other.publish("soon", {"soon": "at last"})
    assert await starting == "at last"
    await thin_node.engine.docker("rmi", "test:soon")


async def test_an_unusable_descriptor_is_named(thin_node: Node, images: Images, tmp_path: Path) -> None:
    content = newer_thin_json(images.published.thin.location)
    layer = _layer(tmp_path, "layer", {"thin.json": content})
    write_image(tmp_path / "broken.tar", name="test:broken", layers=[layer])
    await thin_node.engine.docker("load", input=tmp_path / "broken.tar")
    with pytest.raises(CommandError, match=r"thin\.json needs version 2\.0 of the form"):
        await _run(thin_node.engine, "test:broken", "true")
    await thin_node.engine.docker("container", "prune", "--force")
    await thin_node.engine.docker("rmi", "test:broken")


# Repositories that the driver mounts


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client_node(
    nodes: Nodes, stratum0: Stratum0, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Node, Path]]:
    """A node whose driver mounts repositories itself, by a stand-in client; and what that serves."""
    directory = tmp_path_factory.mktemp("client")
    source = directory / "source"
    source.mkdir()
    (source / REPOSITORY).symlink_to(stratum0.tree)
    node = await nodes.start(
        driver_env={
            "GRAPHDRIVER_REPOSITORY_MOUNTS": "driver",
            "GRAPHDRIVER_CVMFS2": str(cvmfs2.install(directory, source)),
            "GRAPHDRIVER_REPOSITORY_LINGER": "1",
            "GRAPHDRIVER_LOOKUP_TIMEOUT": "4",
            "GRAPHDRIVER_PUBLISH_WAIT": str(WAIT),
        }
    )
    yield node, source
    await node.stop()
    assert mounts_below(node.directory) == []


def _repository_mounts(node: Node) -> list[str]:
    return [point for point in mounts_below(node.directory) if "/repositories/" in point]


async def _unmounted(node: Node) -> None:
    async def gone() -> bool:
        return _repository_mounts(node) == []

    await wait_until(gone, what="the repository is unmounted")


async def test_a_repository_is_mounted_as_long_as_it_is_used(client_node: tuple[Node, Path]) -> None:
    node, source = client_node
    container = await run_container(node.engine, THIN)
    assert (container.root / "etc/debian_version").read_text()
    [point] = _repository_mounts(node)
    assert point.endswith(f"/repositories/{REPOSITORY}")
    await asyncio.sleep(1.5)
    assert _repository_mounts(node) == [point]
    mounted = len(cvmfs2.calls(source))
    assert await _run(node.engine, THIN, "echo another") == "another"
    assert len(cvmfs2.calls(source)) == mounted
    await node.engine.docker("rm", "--force", container.id)
    await _unmounted(node)
    assert await _run(node.engine, THIN, "echo again") == "again"
    assert len(cvmfs2.calls(source)) == mounted + 1
    await _unmounted(node)


async def test_a_dead_client_is_replaced_at_the_next_start(client_node: tuple[Node, Path]) -> None:
    node, source = client_node
    container = await run_container(node.engine, THIN)
    os.kill(cvmfs2.serving_process(source, REPOSITORY), signal.SIGKILL)
    assert await _run(node.engine, THIN, "cat /etc/debian_version")
    # What stands on the dead mount works again once it has been restarted.
    await node.engine.docker("restart", container.id)
    assert (await node.engine.docker("exec", container.id, "cat", "/etc/debian_version")).text
    await node.engine.docker("rm", "--force", container.id)
    await _unmounted(node)


async def test_a_client_that_hangs_fails_the_start_and_nothing_else(client_node: tuple[Node, Path]) -> None:
    node, source = client_node
    container = await run_container(node.engine, THIN)
    process = cvmfs2.serving_process(source, REPOSITORY)
    fuse.stop(process)
    try:
        start = time.monotonic()
        with pytest.raises(CommandError, match="does not answer within 4 s: the CVMFS client hangs"):
            await _run(node.engine, THIN, "true")
        assert time.monotonic() - start < 60
        assert await _run(node.engine, BASE, "echo regular") == "regular"
    finally:
        os.kill(process, signal.SIGCONT)
    assert await _run(node.engine, THIN, "echo thin") == "thin"
    await node.engine.docker("container", "prune", "--force")
    await node.engine.docker("rm", "--force", container.id)
    await _unmounted(node)


async def test_a_client_that_cannot_mount_says_why(client_node: tuple[Node, Path]) -> None:
    node, source = client_node
    (source / f"{REPOSITORY}.behaviour").write_text("fail")
    try:
        with pytest.raises(CommandError, match=r"(?s)ended with status 9: .*Failed to initialize root file catalog"):
            await _run(node.engine, THIN, "true")
    finally:
        (source / f"{REPOSITORY}.behaviour").unlink()
    await node.engine.docker("container", "prune", "--force")
    assert await _run(node.engine, THIN, "echo works") == "works"
    await _unmounted(node)


async def test_mounts_of_a_killed_driver_are_used_by_the_next(client_node: tuple[Node, Path]) -> None:
    """In this sandbox the client outlives the driver, as it does outside a managed plugin."""
    node, source = client_node
    container = await run_container(node.engine, THIN)
    mounted = len(cvmfs2.calls(source))
    await node.driver.kill()
    await node.start_driver()
    assert (await node.engine.docker("exec", container.id, "cat", "/etc/debian_version")).text
    assert await _run(node.engine, THIN, "echo again") == "again"
    assert len(cvmfs2.calls(source)) == mounted
    await node.engine.docker("rm", "--force", container.id)
    await _unmounted(node)
