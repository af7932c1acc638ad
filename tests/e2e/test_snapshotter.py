"""A node with containerd: regular images as under its own overlayfs snapshotter, thin ones, and commits of both."""

import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import CommandError
from harness.containerd_node import ContainerdNode
from harness.containers import Container, run_container
from harness.demo.playground import write_playground
from harness.engine import Engine
from harness.images import write_image
from harness.node import Node
from harness.processes import wait_until
from harness.registry import Registry
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from harness.trees import CONTAINER_EXCLUSIONS, Tree, differences, read_directory
from tests.support.e2e import BASE, REPOSITORY, THIN, Images
from tests.support.edits import make_edits
from tests.support.metrics import ask, shown
from tests.support.mounts import mounts_below

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGE = "test:playground"
THIN_IMAGE = "test:thin-playground"
METRICS = Path("/run/containerd-metrics.sock")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def containerd_node(
    stratum0: Stratum0, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ContainerdNode]:
    """A node with images of two layers, regular and thin."""
    directory = tmp_path_factory.mktemp("containerd")
    node = ContainerdNode(
        name="containerd",
        directory=directory / "node",
        cvmfs_root=stratum0.cvmfs_root,
        snapshotter_env={
            **stratum0.containerd_node_settings,
            "LAYER_STORE_RETRY_SECONDS": "1",
            "SNAPSHOTTER_COPY_INTERVAL": "0.3",
            "SNAPSHOTTER_PUBLISH_WAIT": "2",
            "SNAPSHOTTER_METRICS": str(METRICS),
        },
    )
    write_playground(directory / "playground.tar")
    write_image(directory / "image.tar", name=IMAGE, layers=[images.base, directory / "playground.tar"])
    images.write_thin(THIN_IMAGE, images.published.thin, await images.publish(directory / "playground.tar"))
    try:
        await node.start()
        await images.load(node.engine)
        await images.load_thin(node.engine)
        await images.load_thin(node.engine, THIN_IMAGE)
        await node.engine.docker("load", input=directory / "image.tar")
        yield node
        assert (await node.engine.docker("ps", "--all", "--quiet")).text == ""
    finally:
        await node.close()
    assert mounts_below(directory) == []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engines(
    containerd_node: ContainerdNode, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Engine, Engine]]:
    """The node's engine, and one with containerd's own snapshotter and the same regular image."""
    directory = tmp_path_factory.mktemp("overlayfs")
    theirs = Engine(name="overlayfs", directory=directory, storage_driver="overlayfs", snapshotter="")
    try:
        await theirs.start()
        await theirs.docker("load", input=containerd_node.directory.parent / "image.tar")
        yield containerd_node.engine, theirs
    finally:
        await theirs.close()


def _tree(container: Container) -> Tree:
    return read_directory(container.root, exclusions=CONTAINER_EXCLUSIONS)


async def _read(engine: Engine, image: str) -> Tree:
    """Read the whole file system of a new container."""
    container = await run_container(engine, image)
    try:
        return _tree(container)
    finally:
        await engine.docker("rm", "--force", container.id)


async def _run(engine: Engine, image: str, script: str) -> str:
    options = ("--rm", "--network=none", "--entrypoint=sh")
    return (await engine.docker("run", *options, image, "-c", script)).text


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()


async def test_info_says_what_keeps_the_images(containerd_node: ContainerdNode) -> None:
    info = json.loads((await containerd_node.engine.docker("info", "--format={{json .}}")).text)
    assert info["Driver"] == "cvmfs"
    assert ["driver-type", "io.containerd.snapshotter.v1"] in info["DriverStatus"]
    listed = [line.split() for line in (await containerd_node.ctr("plugins", "ls")).text.splitlines()]
    states = {(kind, name): state for kind, name, _platform, state in listed}
    assert states["io.containerd.snapshotter.v1", "cvmfs"] == "ok"
    assert states["io.containerd.differ.v1", "cvmfs-diff"] == "ok"


async def test_what_is_done_for_containerd_is_counted(containerd_node: ContainerdNode) -> None:
    before = await shown(METRICS)
    container = await run_container(containerd_node.engine, THIN)
    during = await shown(METRICS)
    await containerd_node.engine.docker("exec", container.id, "sh", "-c", "echo counted >/counted")
    await containerd_node.engine.docker("commit", container.id, "test:counted")
    await containerd_node.engine.docker("rm", "--force", container.id)
    after = await shown(METRICS)
    users = f'thin_node_repository_users{{repository="{REPOSITORY}"}}'
    assert during[users] > before[users]
    diffs = 'thin_node_operations_total{method="Diff",outcome="ok"}'
    assert after[diffs] == before.get(diffs, 0) + 1
    for name in ('thin_node_operations_total{method="Prepare",outcome="ok"}', 'thin_node_uploads_total{outcome="ok"}'):
        assert after[name] > before.get(name, 0)
    # It is containerd's own differ that unpacks layers.
    assert after['thin_node_operations_total{method="Apply",outcome="declined"}'] > 0
    assert (await ask(METRICS, "/healthz"))["repositories"][REPOSITORY]["hung_lookups"] == 0


async def test_regular_images_are_as_under_overlayfs(engines: tuple[Engine, Engine], tmp_path: Path) -> None:
    trees, committed, changes, built = [], [], [], []
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE}\n"
        "RUN rm -r /playground/untouched && chmod 700 /mnt && touch --date=@1 /playground\n"
        "COPY Dockerfile /srv/\n"
    )
    for engine in engines:
        container = await run_container(engine, IMAGE)
        trees.append(_tree(container))
        await make_edits(container.pid)
        changes.append(sorted((await engine.docker("diff", container.id)).text.splitlines()))
        await engine.docker("commit", container.id, "test:committed")
        await engine.docker("rm", "--force", container.id)
        committed.append(await _read(engine, "test:committed"))
        for builder in ("0", "1"):
            name = f"test:built-{builder}"
            env = {"DOCKER_BUILDKIT": builder, "SOURCE_DATE_EPOCH": "1700000000"}
            await engine.docker("build", "--network=none", "--tag", name, tmp_path, env=env)
            tree = await _read(engine, name)
            built.append({path: entry for path, entry in tree.items() if not path.startswith(b"srv")})
    assert len(trees[0]) > 500
    for ours, theirs in (trees, committed, (built[0], built[2]), (built[1], built[3])):
        assert differences(ours, theirs, names=("snapshotter", "overlayfs")) == []
    assert changes[0] == changes[1]
    # An image that one saves, the other runs.
    await engines[0].docker("save", "test:committed", output=tmp_path / "saved.tar")
    await engines[1].docker("rmi", "test:committed")
    await engines[1].docker("load", input=tmp_path / "saved.tar")
    assert differences(committed[0], await _read(engines[1], "test:committed")) == []
    await engines[0].docker("rmi", "test:committed", "test:built-0", "test:built-1")


async def test_ctr_runs_an_image(containerd_node: ContainerdNode) -> None:
    archive, name = containerd_node.directory.parent / "image.tar", f"docker.io/library/{IMAGE}"
    options = ("--rm", "--snapshotter=cvmfs")
    await containerd_node.ctr("images", "import", "--snapshotter=cvmfs", archive)
    done = await containerd_node.ctr("run", *options, name, "one", "cat", "/playground/untouched/file")
    assert done.text
    await containerd_node.ctr("images", "remove", "--sync", name)
    assert (await containerd_node.ctr("snapshots", "--snapshotter=cvmfs", "list")).text.splitlines()[1:] == []


async def test_thin_images_show_the_same_files(containerd_node: ContainerdNode) -> None:
    ours, regular = [await _read(containerd_node.engine, image) for image in (THIN_IMAGE, IMAGE)]
    assert len(ours) > 500
    assert differences(ours, regular, names=("thin", "regular")) == []


async def test_a_commit_is_published_and_runs_elsewhere(
    containerd_node: ContainerdNode, node: Node, stratum0: Stratum0, tmp_path: Path
) -> None:
    """Every kind of change is committed, runs before it is published and after, and on a node with the graphdriver."""
    engine = containerd_node.engine
    container = await run_container(engine, THIN_IMAGE)
    await make_edits(container.pid)
    before = _tree(container)
    await stratum0.publisher.stop()
    try:
        await engine.docker("commit", container.id, "test:committed")
        await engine.docker("rm", "--force", container.id)
        assert differences(before, await _read(engine, "test:committed")) == []
    finally:
        await stratum0.start_publisher()
    await engine.docker("save", "test:committed", output=tmp_path / "saved.tar")
    assert (tmp_path / "saved.tar").stat().st_size < 64 << 10
    descriptor = await read_descriptor(engine, "test:committed", tmp_path)
    assert len(descriptor.layers) == 3
    await stratum0.visible(descriptor.layers[-1].id)

    async def gone() -> bool:
        return not list((containerd_node.state / "copies").iterdir())

    await wait_until(gone, what="the local copy is dropped")
    assert differences(before, await _read(engine, "test:committed")) == []
    await node.engine.docker("load", input=tmp_path / "saved.tar")
    assert differences(before, await _read(node.engine, "test:committed")) == []
    await engine.docker("rmi", "test:committed")
    await node.engine.docker("rmi", "test:committed")


async def test_an_image_of_the_graphdriver_runs_and_is_committed_on(
    containerd_node: ContainerdNode, node: Node, tmp_path: Path
) -> None:
    await node.engine.docker("run", "--name=first", "--network=none", THIN, "sh", "-c", "echo 1 >/first; rm /etc/issue")
    await node.engine.docker("commit", "first", "test:first")
    await node.engine.docker("rm", "first")
    descriptor = await read_descriptor(node.engine, "test:first", tmp_path)
    await node.engine.docker("save", "test:first", output=tmp_path / "first.tar")
    await node.engine.docker("rmi", "test:first")
    engine = containerd_node.engine
    await engine.docker("load", input=tmp_path / "first.tar")
    await engine.docker("run", "--name=second", "--network=none", "test:first", "sh", "-c", "echo 2 >/second")
    await engine.docker("commit", "second", "test:second")
    await engine.docker("rm", "second")
    assert await _run(engine, "test:second", "cat /first /second; ls /etc/issue /thin.json 2>&1 | wc -l") == "1\n2\n2"
    layers = (await read_descriptor(engine, "test:second", tmp_path)).layers
    assert layers[:-1] == descriptor.layers
    await engine.docker("rmi", "test:first", "test:second")


async def test_a_node_is_moved_and_could_go_back(stratum0: Stratum0, images: Images, tmp_path: Path) -> None:
    directory, root = tmp_path / "node", stratum0.cvmfs_root
    before = Node(name="moved", directory=directory, cvmfs_root=root, driver_env=stratum0.node_settings)
    after = ContainerdNode(
        name="moved", directory=directory, cvmfs_root=root, snapshotter_env=stratum0.containerd_node_settings
    )
    volume, shown_files = "--volume=data:/data", "cat /kept /data/file"
    try:
        await before.start()
        await images.load_thin(before.engine)
        script = "echo kept >/kept; echo of the volume >/data/file"
        options = ("--name=work", "--network=none", volume, "--entrypoint=sh")
        await before.engine.docker("run", *options, THIN, "-c", script)
        await before.engine.docker("commit", "work", "test:kept")
        await before.engine.docker("save", "test:kept", output=tmp_path / "kept.tar")
        await before.close()

        await after.start()
        assert (await after.engine.docker("images", "--quiet")).text == ""
        assert (await after.engine.docker("ps", "--all", "--quiet")).text == ""
        await after.engine.docker("load", input=tmp_path / "kept.tar")
        options = ("--rm", "--network=none", volume, "--entrypoint=sh")
        said = await after.engine.docker("run", *options, "test:kept", "-c", shown_files)
        assert said.text == "kept\nof the volume"
        await after.close()

        await before.start()
        assert (await before.engine.docker("ps", "--all", "--format={{.Names}}")).text == "work"
        said = await before.engine.docker("run", *options, "test:kept", "-c", shown_files)
        assert said.text == "kept\nof the volume"
    finally:
        await after.close()
        await before.close()


@pytest.mark.parametrize("builder", ["0", "1"], ids=["classic", "buildkit"])
async def test_builds_on_a_thin_image_make_thin_layers(
    containerd_node: ContainerdNode, tmp_path: Path, builder: str
) -> None:
    engine = containerd_node.engine
    (tmp_path / "Dockerfile").write_text(
        f"FROM {THIN}\nRUN echo a{builder} >/a\nRUN echo b >/b && rm /etc/issue\nCOPY Dockerfile /c\n"
    )
    env = {"DOCKER_BUILDKIT": builder}
    await engine.docker("build", "--network=none", "--tag=test:built", tmp_path, env=env)
    assert await _run(engine, "test:built", "cat /a /b; ls /c /etc/issue 2>/dev/null || true") == f"a{builder}\nb\n/c"
    descriptor = await read_descriptor(engine, "test:built", tmp_path)
    assert len(descriptor.layers) == 4
    await engine.docker("save", "test:built", output=tmp_path / "saved.tar")
    # Of every step the differ has made a layer: containerd's own would have made one of files.
    with tarfile.open(tmp_path / "saved.tar") as archive:
        manifests = json.loads(_content(archive, "manifest.json"))
        for layer in manifests[0]["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(_content(archive, layer))) as tar:
                assert tar.getnames() == ["thin.json"]
    await engine.docker("rmi", "test:built")


async def test_a_registry_carries_the_descriptor_only(containerd_node: ContainerdNode, tmp_path: Path) -> None:
    engine = containerd_node.engine
    registry = Registry(tmp_path / "registry")
    await registry.start()
    try:
        name = f"{registry.address}/thin:latest"
        await engine.docker("run", "--name=pushed", "--network=none", THIN, "sh", "-c", "echo pushed >/pushed")
        await engine.docker("commit", "pushed", name)
        await engine.docker("rm", "pushed")
        await engine.docker("push", name)
        await engine.docker("rmi", name)
        blobs = [path.stat().st_size for path in (tmp_path / "registry/data").rglob("data")]
        assert len(blobs) > 2
        assert sum(blobs) < 16 << 10
        await engine.docker("pull", name)
        assert await _run(engine, name, "cat /pushed") == "pushed"
        await engine.docker("rmi", name)
    finally:
        await registry.close()


async def test_a_commit_that_cannot_be_uploaded_fails_with_its_reason(
    containerd_node: ContainerdNode, stratum0: Stratum0
) -> None:
    engine = containerd_node.engine
    await engine.docker("run", "--name=kept", "--network=none", THIN, "sh", "-c", "echo kept >/kept")
    await stratum0.store.stop()
    try:
        with pytest.raises(CommandError, match="was not committed: "):
            await engine.docker("commit", "kept", "test:lost")
    finally:
        await stratum0.store.start()
    await engine.docker("commit", "kept", "test:kept")
    assert await _run(engine, "test:kept", "cat /kept") == "kept"
    await engine.docker("rm", "kept")
    await engine.docker("rmi", "test:kept")


async def test_containers_outlive_the_snapshotter(containerd_node: ContainerdNode) -> None:
    engine = containerd_node.engine
    container = await run_container(engine, THIN)
    await engine.docker("exec", container.id, "sh", "-c", "echo kept >/kept")
    await containerd_node.snapshotter.kill()
    assert (await engine.docker("exec", container.id, "cat", "/kept", "/etc/debian_version")).text.startswith("kept")
    await containerd_node.start_snapshotter()

    async def runs() -> bool:
        # containerd connects again after a second, or two.
        try:
            return await _run(engine, THIN, "echo runs") == "runs"
        except CommandError:
            return False

    await wait_until(runs, what="a container runs after the restart")
    await engine.docker("restart", container.id)
    assert (await engine.docker("exec", container.id, "cat", "/kept")).text == "kept"
    await engine.docker("commit", container.id, "test:kept")
    await engine.docker("rm", "--force", container.id)
    assert await _run(engine, "test:kept", "cat /kept") == "kept"
    await engine.docker("rmi", "test:kept")


async def test_what_is_removed_leaves_nothing(containerd_node: ContainerdNode) -> None:
    engine = containerd_node.engine
    before = {path.name for path in (containerd_node.state / "l").iterdir()}
    await engine.docker("run", "--name=gone", "--network=none", BASE, "sh", "-c", "echo gone >/gone")
    await engine.docker("commit", "gone", "test:gone")
    await engine.docker("rm", "gone")
    await engine.docker("rmi", "test:gone")

    async def gone() -> bool:
        left = {path.name for path in (containerd_node.state / "l").iterdir()}
        return left <= before and not list((containerd_node.state / "trash").iterdir())

    await wait_until(gone, what="the snapshots are removed")
