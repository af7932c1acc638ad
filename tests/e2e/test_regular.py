"""Regular images behave as under overlay2: every operation, compared with a second engine."""

import asyncio
import io
import json
import re
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import CommandError
from harness.containers import Container, run_container
from harness.demo.playground import write_playground
from harness.engine import Engine
from harness.images import write_image
from harness.node import Node
from harness.trees import CONTAINER_EXCLUSIONS, Exclusions, Tree, differences, read_directory
from tests.support.deep import deepen
from tests.support.e2e import BASE, Images
from tests.support.edits import make_edits
from tests.support.mounts import mounts_below

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGE = "test:playground"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engines(
    node: Node, overlay2: Engine, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Engine, Engine]]:
    """The node's engine and one under overlay2, both with an image of two layers."""
    directory = tmp_path_factory.mktemp("playground")
    write_playground(directory / "playground.tar")
    write_image(directory / "image.tar", name=IMAGE, layers=[images.base, directory / "playground.tar"])
    both = node.engine, overlay2
    for engine in both:
        await engine.docker("load", input=directory / "image.tar")
    yield both
    for engine in both:
        containers = (await engine.docker("ps", "--all", "--quiet")).text.split()
        assert containers == [], f"{engine.name} has containers left"
    # This engine takes a reference for an export that it never gives back, so that one outlives its container, under
    # every driver; when the engine stops, it goes too.
    assert len(_unions(node)) <= 1
    await node.stop()
    assert mounts_below(node.directory) == []


def _unions(node: Node) -> list[str]:
    return [point for point in mounts_below(node.directory) if point.endswith("/merged")]


@pytest.fixture
async def containers(engines: tuple[Engine, Engine]) -> AsyncIterator[tuple[Container, Container]]:
    """A running container of the image on each engine."""
    both = await run_container(engines[0], IMAGE), await run_container(engines[1], IMAGE)
    yield both
    for engine, container in zip(engines, both, strict=True):
        await engine.docker("rm", "--force", container.id)


def _tree(container: Container) -> Tree:
    return read_directory(container.root, exclusions=CONTAINER_EXCLUSIONS)


def _playground(container: Container) -> Tree:
    """Read what the edits were made in; of what a load under overlay2 clamps to 1970 the time is left out."""
    clamped = Exclusions(times=frozenset({b"before-1970"}))
    return read_directory(container.root / "playground", exclusions=clamped)


async def _both(engines: tuple[Engine, Engine], *arguments: str) -> tuple[str, str]:
    """Run a command on both engines; return what they print."""
    first, second = [await engine.docker(*arguments) for engine in engines]
    return first.text, second.text


async def _change(containers: tuple[Container, Container]) -> None:
    for container in containers:
        await make_edits(container.pid)


def _layers(node: Node) -> set[str]:
    home = node.engine.data_root / node.name
    return {path.name for path in (home / "layers").iterdir()}


async def test_info_says_what_the_driver_is(node: Node, engines: tuple[Engine, Engine]) -> None:
    status = json.loads((await engines[0].docker("info", "--format={{json .DriverStatus}}")).text)
    assert (await engines[0].docker("info", "--format={{.Driver}}")).text == node.name
    names = dict(status)
    assert names["Repositories"] == "test.example.org"
    assert names["Repositories in use"] == "none"
    assert int(names["Mounted unions"]) >= 0
    assert names["Layers waiting to be published"] == "0"


async def test_a_container_sees_the_same_file_system(containers: tuple[Container, Container]) -> None:
    ours, theirs = map(_tree, containers)
    assert len(ours) > 500
    assert differences(ours, theirs, names=("graphdriver", "overlay2")) == []


async def test_changes_are_seen_sized_committed_and_run_alike(
    engines: tuple[Engine, Engine], containers: tuple[Container, Container]
) -> None:
    await _change(containers)
    # docker diff.
    ours, theirs = [
        sorted((await engine.docker("diff", container.id)).text.splitlines())
        for engine, container in zip(engines, containers, strict=True)
    ]
    assert ours == theirs
    assert any(line.startswith("D /playground/") for line in ours)
    # ps -s and inspect -s.
    sizes = [
        json.loads((await engine.docker("inspect", "--size", container.id)).text)[0]
        for engine, container in zip(engines, containers, strict=True)
    ]
    assert sizes[0]["SizeRw"] == sizes[1]["SizeRw"] > 50 << 20  # the sparse file's size counts
    assert sizes[0]["SizeRootFs"] == sizes[1]["SizeRootFs"]
    listed = await _both(engines, "ps", "--size", "--format={{.Size}}")
    assert listed[0] == listed[1]
    # commit, and a container of it.
    before = [_playground(container) for container in containers]
    assert differences(*before, names=("graphdriver", "overlay2")) == []
    for engine, container in zip(engines, containers, strict=True):
        await engine.docker("commit", "--change=ENV A=b", container.id, "test:committed")
    committed = await run_container(engines[0], "test:committed")
    try:
        # Complete, where overlay2 drops fractions of seconds and attributes of users.
        assert differences(before[0], _playground(committed), names=("container", "committed image")) == []
    finally:
        await engines[0].docker("rm", "--force", committed.id)
    sizes = [int((await engine.docker("image", "inspect", "--format={{.Size}}", "test:committed")).text)
             for engine in engines]  # fmt: skip
    assert sizes[0] == sizes[1]
    assert await _both(engines, "image", "inspect", "--format={{.Config.Env}}", "test:committed") == ("[A=b]",) * 2
    await _both(engines, "rmi", "test:committed")


async def test_the_same_changes_give_the_same_layer(
    engines: tuple[Engine, Engine], containers: tuple[Container, Container]
) -> None:
    await make_edits(containers[0].pid)
    layers = []
    for name in ("test:one", "test:two"):
        await engines[0].docker("commit", containers[0].id, name)
        inspected = await engines[0].docker("image", "inspect", "--format={{json .RootFS.Layers}}", name)
        layers.append(json.loads(inspected.text))
    assert layers[0] == layers[1]
    assert len(layers[0]) == 3
    await engines[0].docker("rmi", "test:one", "test:two")


async def test_a_container_that_was_never_started(engines: tuple[Engine, Engine], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    names = await _both(engines, "create", "--name=created", "--network=none", IMAGE, "cat", "/copied")
    assert len(names) == 2
    assert await _both(engines, "diff", "created") == ("", "")
    for engine in engines:
        await engine.docker("cp", tmp_path / "file", "created:/copied")
    assert await _both(engines, "diff", "created") == ("A /copied", "A /copied")
    assert await _both(engines, "start", "--attach", "created") == ("content", "content")
    await _both(engines, "rm", "created")


async def test_copying_both_ways(
    engines: tuple[Engine, Engine], containers: tuple[Container, Container], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner/file").write_text("inner")
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o755)
    (source / "link").symlink_to("script")
    for running in (True, False):
        if not running:
            await _both(engines, "version")
            for engine, container in zip(engines, containers, strict=True):
                await engine.docker("stop", container.id)
        copied = []
        for engine, container in zip(engines, containers, strict=True):
            await engine.docker("cp", "--archive", source, f"{container.id}:/srv/{running}")
            await engine.docker("cp", source / "script", f"{container.id}:/playground/edited")
            target = tmp_path / f"{engine.name}-{running}"
            target.mkdir()
            await engine.docker("cp", "--archive", f"{container.id}:/srv/{running}", target)
            await engine.docker("cp", f"{container.id}:/playground/edited", target / "edited")
            await engine.docker("cp", "--follow-link", f"{container.id}:/srv/{running}/link", target / "followed")
            archive = await engine.docker("cp", f"{container.id}:/playground", "-")
            with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
                members = sorted((member.name, member.mode, member.size, member.linkname) for member in tar)
            copied.append((read_directory(target), members))
        times = [{path: entry.mtime for path, entry in tree.items()} for tree, _ in copied]
        assert times[0].keys() == times[1].keys()
        assert copied[0][1] == copied[1][1]
        assert (tmp_path / f"{engines[0].name}-{running}/followed").read_text() == "#!/bin/sh\n"
        assert copied[0][0][f"{running}/inner/file".encode()] == copied[1][0][f"{running}/inner/file".encode()]


async def test_an_export_holds_the_same(
    engines: tuple[Engine, Engine], containers: tuple[Container, Container], tmp_path: Path
) -> None:
    await _change(containers)
    listings = []
    for engine, container in zip(engines, containers, strict=True):
        await engine.docker("export", container.id, output=tmp_path / "export.tar")
        with tarfile.open(tmp_path / "export.tar", errors="surrogateescape") as tar:
            listings.append(
                sorted(
                    (member.name, member.type, member.mode, member.uid, member.gid, member.size, member.mtime)
                    for member in tar
                    if member.name.startswith(("playground", "usr"))
                )
            )
    assert len(listings[0]) > 500
    assert listings[0] == listings[1]


async def test_an_image_of_more_than_a_hundred_layers(
    engines: tuple[Engine, Engine], images: Images, tmp_path: Path
) -> None:
    layers = [images.base]
    for number in range(120):
        layer = tmp_path / f"{number}.tar"
        with tarfile.open(layer, "w") as tar:
            for name, content in ((f"many/{number}", b""), ("many/last", b"%d" % number)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            if number:
                tar.addfile(tarfile.TarInfo(f"many/.wh.{number - 1}"))
        layers.append(layer)
    write_image(tmp_path / "many.tar", name="test:many", layers=layers)
    for engine in engines:
        await engine.docker("load", input=tmp_path / "many.tar")
    printed = await _both(engines, "run", "--rm", "--network=none", "test:many", "sh", "-c", "ls /many; cat /many/last")
    assert printed == ("119\nlast\n119",) * 2
    await _both(engines, "rmi", "test:many")


async def test_saving_and_loading_across_drivers(
    engines: tuple[Engine, Engine], containers: tuple[Container, Container], tmp_path: Path
) -> None:
    await make_edits(containers[0].pid)
    before = _playground(containers[0])
    await engines[0].docker("commit", containers[0].id, "test:moved")
    identity = (await engines[0].docker("image", "inspect", "--format={{.Id}}", "test:moved")).text
    await engines[0].docker("save", "test:moved", output=tmp_path / "moved.tar")
    await engines[1].docker("load", input=tmp_path / "moved.tar")
    assert (await engines[1].docker("image", "inspect", "--format={{.Id}}", "test:moved")).text == identity
    # And back, what overlay2 saves.
    await engines[0].docker("rmi", "test:moved")
    await engines[1].docker("save", "test:moved", output=tmp_path / "back.tar")
    await engines[0].docker("load", input=tmp_path / "back.tar")
    for engine in engines:
        container = await run_container(engine, "test:moved")
        try:
            assert differences(before, _playground(container), names=("container", engine.name)) == []
        finally:
            await engine.docker("rm", "--force", container.id)
    await _both(engines, "rmi", "test:moved")


async def test_removing_and_pruning_leaves_no_layer(
    node: Node, engines: tuple[Engine, Engine], images: Images, tmp_path: Path
) -> None:
    before = _layers(node)
    with tarfile.open(tmp_path / "layer.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("extra"))
    write_image(tmp_path / "image.tar", name="test:extra", layers=[images.base, tmp_path / "layer.tar"])
    await engines[0].docker("load", input=tmp_path / "image.tar")
    await engines[0].docker("create", "--network=none", "test:extra", "true")
    assert len(_layers(node) - before) == 3
    assert re.search("Deleted Containers", (await engines[0].docker("container", "prune", "--force")).text)
    assert len(_layers(node) - before) == 1
    await engines[0].docker("rmi", "test:extra")
    assert _layers(node) == before
    await engines[0].docker("load", input=tmp_path / "image.tar")
    await engines[0].docker("tag", BASE, "test:extra")  # the loaded one dangles now
    await engines[0].docker("image", "prune", "--force")
    assert _layers(node) == before
    await engines[0].docker("load", input=tmp_path / "image.tar")
    await engines[0].docker("create", "--network=none", "test:extra", "true")
    await engines[0].docker("tag", BASE, "test:extra")
    await engines[0].docker("system", "prune", "--force")
    assert _layers(node) == before
    await engines[0].docker("rmi", "test:extra")
    home = engines[0].data_root / node.name
    assert list((home / "trash").iterdir()) == []
    assert len(list((home / "l").iterdir())) == len(before)


async def test_a_tree_deeper_than_any_path(node: Node, engines: tuple[Engine, Engine]) -> None:
    """overlay2 has no answer to most of this; a driver that is stopped by it would serve no container any more."""
    before = _layers(node)
    container = await run_container(engines[0], IMAGE)
    await asyncio.to_thread(deepen, container.root, 3_000)
    changes = (await engines[0].docker("diff", container.id)).text.split("\n")
    assert sum(change.startswith("A /d") for change in changes) == 3_001
    size = await engines[0].docker("inspect", "--size", "--format", "{{.SizeRw}}", container.id)
    assert int(size.text) == 0
    await engines[0].docker("rm", "--force", container.id)
    assert _layers(node) == before
    assert list((engines[0].data_root / node.name / "trash").iterdir()) == []


async def test_many_containers_at_once(engines: tuple[Engine, Engine]) -> None:
    outputs = await asyncio.gather(
        *(engines[0].docker("run", "--rm", "--network=none", IMAGE, "cat", "/playground/edited") for _ in range(6))
    )
    assert len({output.text for output in outputs}) == 1


async def test_inspection_tells_where_a_container_is(
    node: Node, engines: tuple[Engine, Engine], containers: tuple[Container, Container]
) -> None:
    data = json.loads((await engines[0].docker("inspect", "--format={{json .GraphDriver}}", containers[0].id)).text)
    assert data["Name"] == node.name
    assert data["Data"]["MergedDir"] in mounts_below(node.directory)
    assert data["Data"]["LowerDir"].count(":") == 2  # the init layer and the image's two
    image = json.loads((await engines[0].docker("image", "inspect", "--format={{json .GraphDriver}}", IMAGE)).text)
    assert Path(image["Data"]["UpperDir"]).is_dir()


async def test_options_that_the_driver_does_not_have_are_refused(engines: tuple[Engine, Engine]) -> None:
    with pytest.raises(CommandError, match="--storage-opt size is not supported by this driver"):
        await engines[0].docker("run", "--rm", "--storage-opt=size=10G", "--network=none", IMAGE, "true")


async def test_a_hostile_layer_fails_the_load_and_leaves_nothing(
    node: Node, engines: tuple[Engine, Engine], images: Images, tmp_path: Path
) -> None:
    """The error comes early in a layer of which the engine has much more to send."""
    before = _layers(node)
    with tarfile.open(tmp_path / "layer.tar", "w") as tar:
        for name, target in (("link", "/etc"), ("link/passwd", None)):
            member = tarfile.TarInfo(name)
            if target is not None:
                member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        member = tarfile.TarInfo("large")
        member.size = 100 << 20
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    write_image(tmp_path / "image.tar", name="test:hostile", layers=[images.base, tmp_path / "layer.tar"])
    with pytest.raises(CommandError, match="'link' is no directory, but the archive has something below it"):
        await engines[0].docker("load", input=tmp_path / "image.tar")
    assert _layers(node) == before
    assert (await engines[0].docker("images", "--quiet", "test:hostile")).text == ""


async def test_a_read_only_container_and_another_user(engines: tuple[Engine, Engine]) -> None:
    for options in (("--read-only",), ("--user=1234:5678",)):
        script = "id -u; touch /tmp/x 2>&1; ls -ld /tmp | cut -c1-10; cat /playground/untouched/file 2>&1 | head -1"
        first, second = await _both(engines, "run", "--rm", "--network=none", *options, IMAGE, "sh", "-c", script)
        assert first == second
