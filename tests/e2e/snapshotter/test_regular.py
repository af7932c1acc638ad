"""Regular images behave as under containerd's own overlayfs snapshotter: the same operations on an engine of each."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import CommandError
from harness.containerd_node import ContainerdNode
from harness.containers import Container, run_container
from harness.engine import Engine
from harness.processes import wait_until
from harness.registry import Registry
from harness.trees import Tree, differences
from tests.support.edits import make_edits
from tests.support.playground import IMAGE, Playground, read_image, tree
from tests.support.saved import (
    Saved,
    document_differences,
    read_saved,
    read_tar,
    saved_differences,
    without_keys,
    without_new_times,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMES = ("snapshotter", "overlayfs")

DOCKERFILE = f"""\
FROM {IMAGE} AS first
ENV GREETING=hello
COPY context/ /app/
RUN echo "$GREETING" >/app/made && rm /app/removed && rm -r /playground/directory-deleted \\
    && rm -r /app/directory && mkdir /app/directory && echo new >/app/directory/new && chmod 4755 /app/script
RUN ln /app/made /app/hard && ln -s made /app/soft && mkfifo /app/fifo && chmod 700 /mnt && chown 12:34 /app/kept
COPY --chown=12:34 context/script /app/owned

FROM {IMAGE}
COPY --from=first /app /app
RUN rm /app/kept/b
WORKDIR /app
CMD ["cat", "made"]
"""

OWN_KEYS = frozenset({"Id", "Created", "RepoDigests", "LastTagTime", "Hostname", "Image", "Layers", "Size"})
"""What images have of their own in `docker inspect`; digests and sizes go by the times that are in layers."""

Engines = tuple[Engine, Engine]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engines(containerd_node: ContainerdNode, overlayfs: Engine) -> Engines:
    """The node's engine and the one that it is compared with."""
    return containerd_node.engine, overlayfs


@pytest_asyncio.fixture(loop_scope="session")
async def containers(engines: Engines) -> AsyncIterator[tuple[Container, Container]]:
    """A running container of the image on each engine."""
    first, second = [await run_container(engine, IMAGE) for engine in engines]
    yield first, second
    for engine, container in zip(engines, (first, second), strict=True):
        await engine.docker("rm", "--force", "--volumes", container.id)


def _same(trees: list[Tree]) -> None:
    ours, theirs = trees
    _none(differences(ours, theirs, names=NAMES))


def _none(lines: list[str]) -> None:
    assert not lines, "\n".join(lines)


async def _both(engines: Engines, *arguments: str | Path) -> str:
    """Run a command on both engines, which print the same, and return that."""
    ours, theirs = [(await engine.docker(*arguments)).text for engine in engines]
    assert ours == theirs
    return ours


async def _saved(engine: Engine, image: str, directory: Path, *, since: float) -> Saved:
    archive = directory / "saved.tar"
    await engine.docker("save", image, output=archive)
    saved = await asyncio.to_thread(read_saved, archive, since=since)
    archive.unlink()
    return saved


async def test_a_container_sees_the_same_file_system(containers: tuple[Container, Container]) -> None:
    trees = [tree(container) for container in containers]
    assert len(trees[0]) > 500
    _same(trees)


async def test_changes_are_seen_sized_committed_and_saved_alike(
    engines: Engines, containers: tuple[Container, Container], tmp_path: Path
) -> None:
    started = time.time()
    for container in containers:
        await make_edits(container.pid)
    # docker diff lists in no order that is promised.
    ours, theirs = [
        sorted((await engine.docker("diff", container.id)).text.splitlines())
        for engine, container in zip(engines, containers, strict=True)
    ]
    assert ours == theirs
    assert "D /playground/deleted" in ours
    sizes = await _both(engines, "ps", "--size", "--format={{.Image}} {{.Size}}")
    assert sizes.startswith(f"{IMAGE} ")
    for engine, container in zip(engines, containers, strict=True):
        await engine.docker("commit", "--change=ENV A=b", "--message=edited", container.id, "test:committed")
    trees = [await read_image(engine, "test:committed") for engine in engines]
    _same(trees)
    assert trees[0][b"playground/made-setuid"].mode == 0o4755
    saved = [await _saved(engine, "test:committed", tmp_path, since=started) for engine in engines]
    _none(saved_differences(*saved, names=NAMES))
    assert len(saved[0].layers) == 3
    assert b"playground/.wh.deleted" in saved[0].layers[2]
    history = await _both(
        engines, "history", "--no-trunc", "--format={{.CreatedBy}} {{.Size}} {{.Comment}}", "test:committed"
    )
    assert len(history.splitlines()) == 3
    for engine in engines:
        await engine.docker("rmi", "test:committed")


async def test_what_one_saves_the_other_runs(engines: Engines, tmp_path: Path) -> None:
    for one, other in (engines, engines[::-1]):
        await one.docker("run", "--name=edited", "--network=none", IMAGE, "sh", "-c", "echo x >/x; rm /etc/issue")
        await one.docker("commit", "edited", "test:saved")
        await one.docker("rm", "edited")
        await one.docker("save", "test:saved", output=tmp_path / "saved.tar")
        await other.docker("load", input=tmp_path / "saved.tar")
        await _both(engines, "image", "inspect", "--format={{.Id}} {{.RootFS}} {{.Size}}", "test:saved")
        script = "cat /x; find / -xdev -path /proc -prune -o -printf '%p %y %m %U %G %s %n\\n' | grep -v '^/etc' | sort"
        options = ("--rm", "--network=none", "--entrypoint=sh")
        assert (await _both(engines, "run", *options, "test:saved", "-c", script)).startswith("x\n/ d 755 ")
        for engine in engines:
            await engine.docker("rmi", "test:saved")


@pytest.mark.parametrize("builder", ["0", "1"], ids=["classic", "buildkit"])
async def test_builds(engines: Engines, tmp_path: Path, builder: str) -> None:
    context = tmp_path / "context"
    for path in ("removed", "script", "directory/old", "kept/a", "kept/b"):
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).write_text(path)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    started = time.time()
    for engine in engines:
        env = {"DOCKER_BUILDKIT": builder}
        await engine.docker("build", "--network=none", "--tag=test:built", tmp_path, env=env)
        again = await engine.docker("build", "--network=none", "--tag=test:built", tmp_path, env=env)
        said = again.stdout.decode() + again.stderr.decode()
        assert said.count("CACHED" if builder == "1" else "Using cache") >= 5
    _same([without_new_times(await read_image(engine, "test:built"), started) for engine in engines])
    saved = [await _saved(engine, "test:built", tmp_path, since=started) for engine in engines]
    _none(saved_differences(*saved, names=NAMES))
    assert await _both(engines, "run", "--rm", "--network=none", "test:built") == "hello"
    for engine in engines:
        await engine.docker("rmi", "test:built")


async def test_a_registry_gets_and_gives_the_same(engines: Engines, registry: Registry) -> None:
    trees = []
    for engine, where in zip(engines, NAMES, strict=True):
        name = f"{registry.address}/{where}:latest"
        await engine.docker("tag", IMAGE, name)
        await engine.docker("push", name)
        await engine.docker("rmi", name, IMAGE)
        await engine.docker("pull", name)
        trees.append(await read_image(engine, name))
        await engine.docker("tag", name, IMAGE)
        await engine.docker("rmi", name)
    _same(trees)
    await _both(engines, "image", "inspect", "--format={{.Id}} {{.RootFS}} {{.Size}}", IMAGE)


async def test_files_are_copied_in_and_out(engines: Engines, tmp_path: Path) -> None:
    (tmp_path / "in/inner").mkdir(parents=True)
    (tmp_path / "in/inner/file").write_text("content")
    (tmp_path / "in/inner/file").chmod(0o640)
    started = time.time()
    copied: dict[str, list[Tree]] = {"/srv": [], "/playground": []}
    for engine in engines:
        # Never started.
        await engine.docker("create", "--name=copied", "--network=none", IMAGE, "cat", "/srv/in/inner/file")
        await engine.docker("cp", "--archive", tmp_path / "in", "copied:/srv")
        for path, trees in copied.items():
            tar = (await engine.docker("cp", f"copied:{path}", "-")).stdout
            trees.append(without_new_times(read_tar(io.BytesIO(tar)), started))
    for trees in copied.values():
        _same(trees)
    assert copied["/srv"][0][b"srv/in/inner/file"].mode == 0o640
    assert await _both(engines, "start", "--attach", "copied") == "content"
    tars = [(await engine.docker("export", "copied")).stdout for engine in engines]
    exported = [without_new_times(read_tar(io.BytesIO(tar)), started) for tar in tars]
    assert len(exported[0]) > 500
    _same(exported)
    for engine in engines:
        await engine.docker("rm", "copied")


async def test_a_tar_is_imported(engines: Engines, playground: Playground) -> None:
    # Sizes are those of configurations, too, where times are written with as many digits as they take.
    for engine in engines:
        await engine.docker("import", "--change=CMD cat /file", playground.layer, "test:imported")
        await engine.docker("create", "--name=imported", "--network=none", "test:imported")
    await _both(engines, "image", "inspect", "--format={{.RootFS}} {{.Config.Cmd}}", "test:imported")
    tars = [(await engine.docker("cp", "imported:/playground", "-")).stdout for engine in engines]
    trees = [read_tar(io.BytesIO(tar)) for tar in tars]
    assert b"playground/untouched/file" in trees[0]
    _same(trees)
    for engine in engines:
        await engine.docker("rm", "imported")
        await engine.docker("rmi", "test:imported")


async def test_names_and_what_is_no_longer_needed(engines: Engines) -> None:
    for engine in engines:
        await engine.docker("run", "--name=stopped", "--network=none", IMAGE, "sh", "-c", "echo 12345 >/file")
        await engine.docker("commit", "stopped", "test:one")
        await engine.docker("tag", "test:one", "test:two")
        await engine.docker("rmi", "test:one")
    assert await _both(engines, "images", "--format={{.Repository}}:{{.Tag}}", "test:two")
    assert await _both(engines, "run", "--rm", "--network=none", "--entrypoint=cat", "test:two", "/file") == "12345"
    documents = [json.loads((await engine.docker("image", "inspect", "test:two")).text)[0] for engine in engines]
    assert [document.pop("GraphDriver")["Name"] for document in documents] == ["cvmfs", "overlayfs"]
    ours, theirs = [without_keys(document, OWN_KEYS) for document in documents]
    _none(document_differences(ours, theirs, names=NAMES))
    for command in ("rm stopped", "rmi test:two"):
        for engine in engines:
            await engine.docker(*command.split())
    for engine in engines:
        # What others have left.
        await engine.docker("image", "prune", "--force")
        await engine.docker("create", "--name=pruned", "--network=none", IMAGE, "true")
        await engine.docker("commit", "pruned")
    for kind in ("container", "image"):
        reports = [(await engine.docker(kind, "prune", "--force")).text.splitlines() for engine in engines]
        # How much that freed depends on what containerd had collected by then.
        assert len(reports[0]) == len(reports[1]) > 1
    assert await _both(engines, "ps", "--all", "--quiet") == ""
    assert await _both(engines, "images", "--quiet", "--filter=dangling=true") == ""


async def _started(engine: Engine, container: str, *, times: int) -> None:
    """Wait until a container has written a line at its start as often as it has been started, and no more often."""
    counted = 0

    async def written() -> bool:
        nonlocal counted
        try:
            counted = len((await engine.docker("exec", container, "cat", "/srv/starts")).text.splitlines())
        except CommandError:
            return False  # it does not run yet, or has written nothing
        return counted >= times

    await wait_until(written, what=f"the container under {engine.name} has been started {times} times")
    assert counted == times


async def test_containers_are_started_again_with_the_engine(engines: Engines) -> None:
    options = ("--detach", "--name=again", "--network=none", "--restart=always", "--stop-signal=SIGKILL")
    for engine in engines:
        await engine.docker("run", *options, IMAGE, "sh", "-c", "echo x >>/srv/starts; sleep infinity")
        await _started(engine, "again", times=1)
        await engine.stop()
        await engine.start()
        await _started(engine, "again", times=2)
    assert await _both(engines, "inspect", "--format={{.State.Status}} {{.RestartCount}}", "again") == "running 0"
    for engine in engines:
        await engine.docker("restart", "again")
        await _started(engine, "again", times=3)
    for engine in engines:
        await engine.docker("rm", "--force", "again")


async def test_ctr_runs_an_image(containerd_node: ContainerdNode, playground: Playground) -> None:
    archive, name = playground.archive, f"docker.io/library/{IMAGE}"
    options = ("--rm", "--snapshotter=cvmfs")
    await containerd_node.ctr("images", "import", "--snapshotter=cvmfs", archive)
    done = await containerd_node.ctr("run", *options, name, "one", "cat", "/playground/untouched/file")
    assert done.text
    await containerd_node.ctr("images", "remove", "--sync", name)
    assert (await containerd_node.ctr("snapshots", "--snapshotter=cvmfs", "list")).text.splitlines()[1:] == []


async def test_info_says_what_keeps_the_images(containerd_node: ContainerdNode) -> None:
    info = json.loads((await containerd_node.engine.docker("info", "--format={{json .}}")).text)
    assert info["Driver"] == "cvmfs"
    assert ["driver-type", "io.containerd.snapshotter.v1"] in info["DriverStatus"]
    listed = [line.split() for line in (await containerd_node.ctr("plugins", "ls")).text.splitlines()]
    states = {(kind, name): state for kind, name, _platform, state in listed}
    assert states["io.containerd.snapshotter.v1", "cvmfs"] == "ok"
    assert states["io.containerd.differ.v1", "cvmfs-diff"] == "ok"
