"""Commits and builds of thin images under containerd: what is uploaded, what comes out, and what fails how."""

import asyncio
import io
import json
import os
import signal
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from harness.commands import CommandError
from harness.containerd_node import ContainerdNode
from harness.containers import run_container
from harness.engine import Engine
from harness.images import write_image
from harness.processes import wait_until
from harness.s3 import s3_client
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from services.common.descriptor import ThinDescriptor
from tests.support.containerd import ContainerdClient
from tests.support.e2e import BASE, REPOSITORY, THIN, Images
from tests.support.metrics import ask, shown
from tests.support.playground import METRICS, Playground, run_script

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUILDERS = pytest.mark.parametrize("builder", ["0", "1"], ids=["classic", "buildkit"])


def _logged(node: ContainerdNode, event: str) -> int:
    """Count what the snapshotter has done."""
    return node.snapshotter.log.read_text().count(event)


def _own_memory(pid: int) -> int:
    """Return what a process has in memory of its own, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) << 10


async def _build(engine: Engine, context: Path, dockerfile: str, builder: str, *options: str) -> None:
    (context / "Dockerfile").write_text(dockerfile)
    env = {"DOCKER_BUILDKIT": builder}
    await engine.docker("build", "--network=none", *(options or ("--tag=test:built",)), context, env=env)


def _layers(archive: Path) -> list[list[str]]:
    """Return the names in each layer of a saved image."""
    with tarfile.open(archive) as outer:

        def content(name: str) -> bytes:
            member = outer.extractfile(name)
            assert member is not None
            return member.read()

        layers = json.loads(content("manifest.json"))[0]["Layers"]
        return [tarfile.open(fileobj=io.BytesIO(content(layer))).getnames() for layer in layers]


async def _saved_layers(engine: Engine, image: str, directory: Path) -> list[list[str]]:
    await engine.docker("save", image, output=directory / "saved.tar")
    return _layers(directory / "saved.tar")


async def _stored(stratum0: Stratum0) -> set[str]:
    """Return the keys of all objects."""
    async with s3_client(stratum0.access) as client:
        found = await client.list_objects_v2(Bucket=stratum0.access.bucket)
        return {item["Key"] for item in found.get("Contents", ())}


async def _blobs(node: ContainerdNode) -> set[str]:
    """Return the blobs in containerd's content store."""
    return set((await node.ctr("--namespace=moby", "content", "list", "--quiet")).text.split())


async def _collect_garbage(node: ContainerdNode) -> None:
    """Have containerd collect garbage, and wait until it has."""
    await node.ctr("--namespace=moby", "leases", "create", "--id=test-gc")
    await node.ctr("--namespace=moby", "leases", "delete", "--sync", "test-gc")


@contextmanager
def _hanging(pid: int) -> Iterator[None]:
    """Stop a process for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def _without_store(stratum0: Stratum0) -> AsyncIterator[None]:
    await stratum0.store.stop()
    try:
        yield
    finally:
        await stratum0.store.start()


async def test_a_commit_holds_what_the_container_has_changed(containerd_node: ContainerdNode, tmp_path: Path) -> None:
    """One that runs, then the same without changes in between, then one of the image that came out."""
    engine = containerd_node.engine
    container = await run_container(engine, THIN)
    await engine.docker("exec", container.id, "sh", "-c", "echo 1 >/one; rm /etc/issue")
    for image in ("test:one", "test:again"):
        await engine.docker("commit", container.id, image)
    await engine.docker("rm", "--force", container.id)
    one, again = [await read_descriptor(engine, image, tmp_path) for image in ("test:one", "test:again")]
    assert one == again
    assert len(one.layers) == 2
    # Nothing has been changed: there is no layer more.
    await engine.docker("create", "--name=unchanged", "--network=none", "test:one", "true")
    await engine.docker("commit", "unchanged", "test:unchanged")
    await engine.docker("rm", "unchanged")
    counts = [len(await _saved_layers(engine, image, tmp_path)) for image in ("test:one", "test:unchanged")]
    assert counts == [2, 2]
    assert await run_script(engine, "test:unchanged", "cat /one; ls /etc/issue /thin.json 2>&1 | wc -l") == "1\n2"
    await engine.docker("rmi", "test:one", "test:again", "test:unchanged")


async def test_what_is_done_for_containerd_is_counted(containerd_node: ContainerdNode) -> None:
    before = await shown(METRICS)
    container = await run_container(containerd_node.engine, THIN)
    during = await shown(METRICS)
    await containerd_node.engine.docker("exec", container.id, "sh", "-c", "echo counted >/counted")
    await containerd_node.engine.docker("commit", container.id, "test:counted")
    await containerd_node.engine.docker("rm", "--force", container.id)
    after = await shown(METRICS)
    await containerd_node.engine.docker("rmi", "test:counted")
    users = f'thin_node_repository_users{{repository="{REPOSITORY}"}}'
    assert during[users] > before.get(users, 0)
    diffs = 'thin_node_operations_total{method="Diff",outcome="ok"}'
    assert after[diffs] == before.get(diffs, 0) + 1
    for name in ('thin_node_operations_total{method="Prepare",outcome="ok"}', 'thin_node_uploads_total{outcome="ok"}'):
        assert after[name] > before.get(name, 0)
    # It is containerd's own differ that unpacks layers.
    assert after['thin_node_operations_total{method="Apply",outcome="declined"}'] > 0
    assert (await ask(METRICS, "/healthz"))["repositories"][REPOSITORY]["hung_lookups"] == 0


async def test_commits_at_the_same_time(containerd_node: ContainerdNode, tmp_path: Path) -> None:
    engine, numbers = containerd_node.engine, range(4)
    for number in numbers:
        name = f"--name=many-{number}"
        await engine.docker("run", name, "--network=none", THIN, "sh", "-c", f"echo {number} >/number")
    await asyncio.gather(*(engine.docker("commit", f"many-{number}", f"test:many-{number}") for number in numbers))
    await engine.docker("rm", *(f"many-{number}" for number in numbers))
    for number in numbers:
        assert await run_script(engine, f"test:many-{number}", "cat /number") == str(number)
        assert len((await read_descriptor(engine, f"test:many-{number}", tmp_path)).layers) == 2
    await engine.docker("rmi", *(f"test:many-{number}" for number in numbers))


async def test_local_layers_above_the_descriptor_are_uploaded(
    containerd_node: ContainerdNode, images: Images, playground: Playground, tmp_path: Path
) -> None:
    engine = containerd_node.engine
    thin = tmp_path / "thin-layer.tar"
    content = ThinDescriptor.of(images.published.thin).encode()
    with tarfile.open(thin, "w") as archive:
        member = tarfile.TarInfo("thin.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    write_image(tmp_path / "mixed.tar", name="test:mixed", layers=[thin, playground.layer])
    await engine.docker("load", input=tmp_path / "mixed.tar")
    await engine.docker("run", "--name=mixed", "--network=none", "test:mixed", "sh", "-c", "rm /playground/edited")
    await engine.docker("commit", "mixed", "test:all-thin")
    await engine.docker("rm", "mixed")
    assert len((await read_descriptor(engine, "test:all-thin", tmp_path)).layers) == 3
    script = "cat /playground/untouched/file | head -1; ls /playground/edited 2>/dev/null; true"
    assert await run_script(engine, "test:all-thin", script) == "untouched/file as it was published"
    await engine.docker("rmi", "test:all-thin", "test:mixed")


async def test_large_commits_leave_no_memory_in_use(containerd_node: ContainerdNode) -> None:
    engine = containerd_node.engine
    container = await run_container(engine, THIN)
    used = []
    for number, megabytes in enumerate((1, 50, 50)):
        script = f"head -c {megabytes}000000 /dev/urandom >/{number}"
        await engine.docker("exec", container.id, "sh", "-c", script)
        await engine.docker("commit", container.id, "test:large")
        used.append(_own_memory(containerd_node.snapshotter.pid))
        await engine.docker("exec", container.id, "rm", f"/{number}")
    await engine.docker("rm", "--force", container.id)
    await engine.docker("rmi", "test:large")
    # Less than the layer; buffers of some 16 MB may still be on their way back, after one of them.
    assert min(used[1:]) - used[0] < 45_000_000, used


@BUILDERS
async def test_builds_on_a_thin_image_make_thin_layers(
    containerd_node: ContainerdNode, stratum0: Stratum0, tmp_path: Path, builder: str
) -> None:
    engine = containerd_node.engine
    steps = f"FROM {THIN}\nRUN echo a{builder} >/a\nRUN echo b{builder} >/b && rm /etc/issue\nCOPY Dockerfile /c\n"
    made, uploaded, stored = (
        _logged(containerd_node, "layer_made"),
        _logged(containerd_node, "layer_uploaded"),
        await _stored(stratum0),
    )
    await _build(engine, tmp_path, steps, builder)
    script = "cat /a /b; ls /c /etc/issue 2>/dev/null; true"
    assert await run_script(engine, "test:built", script) == f"a{builder}\nb{builder}\n/c"
    descriptor = await read_descriptor(engine, "test:built", tmp_path)
    assert len(descriptor.layers) == 4
    # Of every step the differ has made a layer: containerd's own would have made one of files.
    assert await _saved_layers(engine, "test:built", tmp_path) == [["thin.json"]] * 4
    assert _logged(containerd_node, "layer_made") - made >= 3
    # Though all layers are asked for at the same time, and each stands on those below it, each is uploaded once.
    assert _logged(containerd_node, "layer_uploaded") - uploaded == 3
    assert len(await _stored(stratum0) - stored) == 3
    # So is what another build has in common with this one.
    (tmp_path / "more").write_text(builder)
    await _build(engine, tmp_path, f"{steps}COPY more /d\n", builder, "--tag=test:more")
    assert _logged(containerd_node, "layer_uploaded") - uploaded <= 5
    assert await run_script(engine, "test:more", "cat /a /d") == f"a{builder}\n{builder}"
    await engine.docker("rmi", "test:built", "test:more")


@pytest.mark.parametrize(("base", "builder"), [(BASE, "1"), ("scratch", "1"), ("scratch", "0")])
async def test_a_dockerfile_can_make_a_thin_image(
    containerd_node: ContainerdNode, tmp_path: Path, base: str, builder: str
) -> None:
    engine = containerd_node.engine
    descriptor = await read_descriptor(engine, THIN, tmp_path)
    (tmp_path / "thin.json").write_bytes(descriptor.encode())
    (tmp_path / "beside").write_text("beside")
    await _build(
        engine, tmp_path, f"FROM {base}\nCOPY thin.json beside /\nCMD cat /beside /etc/debian_version\n", builder
    )
    # What is in the repository is not in the image.
    layers = await _saved_layers(engine, "test:built", tmp_path)
    assert [name for name in layers[-1] if name not in ("./", "/", ".")] == ["beside", "thin.json"]
    shown = await engine.docker("run", "--rm", "--network=none", "test:built")
    assert shown.text.startswith("beside")
    assert await run_script(engine, "test:built", "ls -d /etc/debian_version /thin.json 2>/dev/null; true") == (
        "/etc/debian_version"
    )
    await engine.docker("rmi", "test:built")


async def test_what_a_build_cannot_make_thin_comes_out_right(containerd_node: ContainerdNode, tmp_path: Path) -> None:
    """`COPY --link`, and layers that are exported with zstd."""
    engine = containerd_node.engine
    dockerfile = (
        f"# syntax=docker/dockerfile:1\nFROM {THIN}\nCOPY --link Dockerfile /linked\nRUN rm /etc/issue; echo x >/x\n"
    )
    await _build(engine, tmp_path, dockerfile.partition("\n")[2], "1")
    script = "ls /linked /etc/issue /thin.json 2>/dev/null; cat /x"
    assert await run_script(engine, "test:built", script) == "/linked\nx"
    await engine.docker("rmi", "test:built")
    output = f"--output=type=oci,dest={tmp_path}/built.tar,compression=zstd,name=test:zstd"
    await _build(engine, tmp_path, f"FROM {THIN}\nRUN rm /etc/issue; echo x >/x\n", "1", output)
    await engine.docker("load", input=tmp_path / "built.tar")
    assert await run_script(engine, "test:zstd", "ls /etc/issue /thin.json 2>/dev/null; cat /x") == "x"
    # The layer is one of files on the descriptor that was there, and goes where it belongs with the next commit.
    await engine.docker("run", "--name=zstd", "--network=none", "test:zstd", "sh", "-c", "echo y >/y")
    await engine.docker("commit", "zstd", "test:all-thin")
    await engine.docker("rm", "zstd")
    assert len((await read_descriptor(engine, "test:all-thin", tmp_path)).layers) == 3
    await engine.docker("rmi", "test:zstd", "test:all-thin")


async def test_a_commit_that_cannot_be_uploaded_fails_with_its_reason_and_leaves_nothing(
    containerd_node: ContainerdNode, stratum0: Stratum0
) -> None:
    engine = containerd_node.engine
    await engine.docker("run", "--name=kept", "--network=none", THIN, "sh", "-c", "echo kept >/kept")
    await _collect_garbage(containerd_node)
    blobs = await _blobs(containerd_node)
    async with _without_store(stratum0):
        with pytest.raises(CommandError, match="was not committed: "):
            await engine.docker("commit", "kept", "test:lost")
    assert (await engine.docker("images", "--quiet", "test:lost")).text == ""
    await _collect_garbage(containerd_node)
    assert await _blobs(containerd_node) == blobs
    assert list((containerd_node.state / "spool").iterdir()) == []
    await engine.docker("commit", "kept", "test:kept")
    assert await run_script(engine, "test:kept", "cat /kept") == "kept"
    await engine.docker("rm", "kept")
    await engine.docker("rmi", "test:kept")


async def test_a_layer_outlives_collections_of_garbage_until_its_image_names_it(
    containerd_node: ContainerdNode,
) -> None:
    """Whenever a container is removed beside a commit, containerd deletes what nothing names."""
    engine = containerd_node.engine
    await engine.docker("run", "--name=asked-for", "--network=none", THIN, "sh", "-c", "echo x >/x")
    snapshots = {line.split()[0] for line in (await _snapshots(containerd_node)).splitlines()[1:]}
    identity = (await engine.docker("inspect", "--format={{.Id}}", "asked-for")).text
    assert {identity, f"{identity}-init"} <= snapshots
    async with ContainerdClient.connected(containerd_node.socket) as client:
        names = [info.name for info in await client.list()]
        (own,) = [name for name in names if name.endswith(f"/{identity}")]
        (init,) = [name for name in names if name.endswith(f"/{identity}-init")]
        # As dockerd asks for it; what it would do next is left out.
        view = await client.view("moby/1000000/test-view", init)
        layer = await client.diff([view], [await client.mounts(own)], namespace="moby")
        await client.remove("moby/1000000/test-view")
    await _collect_garbage(containerd_node)
    assert layer.digest in await _blobs(containerd_node)
    # With its lease it goes.
    leases = (await containerd_node.ctr("--namespace=moby", "leases", "list", "--quiet")).text.split()
    await containerd_node.ctr(
        "--namespace=moby", "leases", "delete", "--sync", *(x for x in leases if "cvmfs-diff" in x)
    )
    assert layer.digest not in await _blobs(containerd_node)
    # And a commit with removals beside it succeeds.
    for number in range(3):
        await engine.docker("create", f"--name=removed-{number}", "--network=none", THIN, "true")
    removals = (engine.docker("rm", f"removed-{number}") for number in range(3))
    await asyncio.gather(engine.docker("commit", "asked-for", "test:asked-for"), *removals)
    assert await run_script(engine, "test:asked-for", "cat /x") == "x"
    await engine.docker("rm", "asked-for")
    await engine.docker("rmi", "test:asked-for")


async def _snapshots(node: ContainerdNode) -> str:
    return (await node.ctr("--namespace=moby", "snapshots", "--snapshotter=cvmfs", "list")).text


async def _runs(engine: Engine) -> None:
    """Wait until containers start after a restart: containerd connects again after a second, or two."""

    async def runs() -> bool:
        try:
            return await run_script(engine, THIN, "echo runs") == "runs"
        except CommandError:
            return False

    await wait_until(runs, what="a container runs after the restart")


async def test_a_kill_in_the_middle_of_a_commit(containerd_node: ContainerdNode, stratum0: Stratum0) -> None:
    engine, spool = containerd_node.engine, containerd_node.state / "spool"
    await engine.docker("run", "--name=killed", "--network=none", THIN, "sh", "-c", "echo kept >/kept")

    async def packed() -> bool:
        return bool(list(spool.glob("*/new")))

    with _hanging(stratum0.store.pid):
        commit = asyncio.create_task(engine.docker("commit", "killed", "test:lost"))
        await wait_until(packed, what="the layer is packed")
        await containerd_node.snapshotter.kill()
        with pytest.raises(CommandError):
            await commit
    await containerd_node.start_snapshotter()
    await _runs(engine)
    assert list(spool.iterdir()) == []
    await engine.docker("commit", "killed", "test:kept")
    assert await run_script(engine, "test:kept", "cat /kept") == "kept"
    await engine.docker("rm", "killed")
    await engine.docker("rmi", "test:kept")


async def test_containers_outlive_the_snapshotter(containerd_node: ContainerdNode) -> None:
    engine = containerd_node.engine
    container = await run_container(engine, THIN)
    await engine.docker("exec", container.id, "sh", "-c", "echo kept >/kept")
    await containerd_node.snapshotter.kill()
    assert (await engine.docker("exec", container.id, "cat", "/kept", "/etc/debian_version")).text.startswith("kept")
    await containerd_node.start_snapshotter()
    await _runs(engine)
    await engine.docker("restart", container.id)
    assert (await engine.docker("exec", container.id, "cat", "/kept")).text == "kept"
    await engine.docker("commit", container.id, "test:kept")
    await engine.docker("rm", "--force", container.id)
    assert await run_script(engine, "test:kept", "cat /kept") == "kept"
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
