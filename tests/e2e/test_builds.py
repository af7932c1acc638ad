"""Builds with the classic builder and BuildKit, of regular and of thin images."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.commands import CommandError
from harness.containers import run_container
from harness.engine import Engine
from harness.node import Node
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from harness.trees import Tree, differences, read_directory
from services.common.digest import Digest
from tests.support.e2e import BASE, THIN
from tests.support.mounts import mounts_below

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUILDERS = {"classic": "0", "BuildKit": "1"}

DOCKERFILE = """\
FROM {base} AS first
ENV GREETING=hello
COPY context/ /app/
RUN echo "$GREETING" > /app/made && rm /app/removed && rm -r /app/directory \\
    && mkdir /app/directory && echo new > /app/directory/new && chmod 4755 /app/script
COPY --chown=12:34 context/script /app/owned
RUN ln /app/made /app/hard && ln -s made /app/soft && mkfifo /app/fifo && chmod 700 /app/kept \\
    && find /app -exec touch -h -d @1700000000 {{}} +

FROM {base}
COPY --from=first /app /app
RUN rm /app/kept/b && touch -h -d @1700000000 /app/kept /app
WORKDIR /app
CMD ["cat", "made"]
"""

SMALL = """\
FROM {base}
COPY context/script /app/script
RUN echo built > /app/made && rm /etc/debian_version
CMD ["cat", "/app/made"]
"""


SQUASHED = """\
FROM {base}
COPY context/script /app/script
RUN rm /etc/debian_version /etc/issue && rm -r /var/log && mkdir /var/log && touch /var/log/some && rm /app/script
RUN echo new > /etc/issue && rm /var/log/some && echo built > /app/made && touch -d @1700000000 /app/made /app
"""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to build from."""
    directory = tmp_path_factory.mktemp("build")
    for path, content in {
        "script": "#!/bin/sh\n",
        "removed": "removed",
        "directory/old": "old",
        "kept/a": "a",
        "kept/b": "b",
    }.items():
        place = directory / "context" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    return directory


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def _clean(node: Node) -> AsyncIterator[None]:
    yield
    await node.stop()
    assert mounts_below(node.directory) == []


async def _build(engine: Engine, context: Path, builder: str, dockerfile: str, name: str, *options: str) -> str:
    """Build, and return what the builder says."""
    (context / "Dockerfile").write_text(dockerfile)
    done = await engine.docker(
        "build", "--network=none", *options, f"--tag={name}", context, env={"DOCKER_BUILDKIT": BUILDERS[builder]}
    )
    return done.stdout.decode() + done.stderr.decode()


async def _tree(engine: Engine, image: str) -> Tree:
    container = await run_container(engine, image)
    try:
        return read_directory(container.root / "app")
    finally:
        await engine.docker("rm", "--force", container.id)


async def _run(engine: Engine, image: str, *command: str) -> str:
    return (await engine.docker("run", "--rm", "--network=none", image, *command)).text


async def _layers(engine: Engine, image: str) -> list[str]:
    inspected = await engine.docker("image", "inspect", "--format={{json .RootFS.Layers}}", image)
    layers: list[str] = json.loads(inspected.text)
    return layers


@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_build_gives_what_it_gives_under_overlay2(
    node: Node, overlay2: Engine, context: Path, builder: str
) -> None:
    image = f"test:{builder.lower()}"
    for engine in (node.engine, overlay2):
        await _build(engine, context, builder, DOCKERFILE.format(base=BASE), image)
    ours, theirs = [await _tree(engine, image) for engine in (node.engine, overlay2)]
    assert differences(ours, theirs, names=("graphdriver", "overlay2")) == []
    assert ours[b"owned"].uid == 12
    assert ours[b"script"].mode == 0o4755
    assert b"kept/b" not in ours
    assert b"directory/old" not in ours
    assert await _run(node.engine, image) == "hello"
    # Another build finds every step done.
    again = await _build(node.engine, context, builder, DOCKERFILE.format(base=BASE), image)
    assert again.count("CACHED" if builder == "BuildKit" else "Using cache") >= 5
    assert len(await _layers(node.engine, image)) == len(await _layers(overlay2, image))
    for engine in (node.engine, overlay2):
        await engine.docker("rmi", image)


async def test_a_squashed_build_gives_what_it_gives_under_overlay2(
    node: Node, overlay2: Engine, context: Path, tmp_path: Path
) -> None:
    for engine in (node.engine, overlay2):
        await _build(engine, context, "classic", SQUASHED.format(base=BASE), "test:squashed", "--squash")
    ours, theirs = [await _tree(engine, "test:squashed") for engine in (node.engine, overlay2)]
    assert differences(ours, theirs, names=("graphdriver", "overlay2")) == []
    for engine in (node.engine, overlay2):
        assert len(await _layers(engine, "test:squashed")) == 2
        script = "ls -d /etc/issue /etc/debian_version /app/script /var/log/* 2>/dev/null; ls -a /app"
        assert (await _run(engine, "test:squashed", "sh", "-c", script)).split() == ["/etc/issue", ".", "..", "made"]
    await node.engine.docker("rmi", "test:squashed")
    await overlay2.docker("rmi", "test:squashed")
    # A thin image's descriptor names every step's layer already.
    await _build(node.engine, context, "classic", SQUASHED.format(base=THIN), "test:squashed", "--squash")
    assert (await _run(node.engine, "test:squashed", "sh", "-c", script)).split() == ["/etc/issue", ".", "..", "made"]
    assert len((await read_descriptor(node.engine, "test:squashed", tmp_path)).layers) == 4
    await node.engine.docker("rmi", "test:squashed")


@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_build_from_nothing(node: Node, context: Path, builder: str) -> None:
    await _build(
        node.engine, context, builder, "FROM scratch\nCOPY context /\nCOPY context/kept /more\n", "test:scratch"
    )
    identity = (await node.engine.docker("create", "--network=none", "test:scratch", "none")).text
    archive = await node.engine.docker("export", identity)
    assert b"more/a" in archive.stdout
    await node.engine.docker("rm", identity)
    await node.engine.docker("rmi", "test:scratch")


@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_step_that_fails_leaves_nothing_mounted(node: Node, context: Path, builder: str) -> None:
    before = mounts_below(node.directory)
    with pytest.raises(CommandError, match=r"exit code: 3|returned a non-zero code: 3"):
        await _build(node.engine, context, builder, f"FROM {BASE}\nRUN touch /x; exit 3\n", "test:failed", "--force-rm")
    assert mounts_below(node.directory) == before


async def test_buildkit_puts_regular_layers_on_a_thin_image(
    node: Node, stratum0: Stratum0, context: Path, tmp_path: Path
) -> None:
    await _build(node.engine, context, "BuildKit", SMALL.format(base=THIN), "test:mixed")
    assert len(await _layers(node.engine, "test:mixed")) == 3
    assert await _run(node.engine, "test:mixed") == "built"
    assert await _run(node.engine, "test:mixed", "sh", "-c", "ls /etc/debian_version /thin.json 2>&1 | wc -l") == "2"
    # The descriptor is as it was: BuildKit takes its layers as they are.
    descriptor = await read_descriptor(node.engine, "test:mixed", tmp_path)
    assert len(descriptor.layers) == 1
    # A container of it makes an image that needs nothing but its descriptor.
    container = await run_container(node.engine, "test:mixed")
    await node.engine.docker("exec", container.id, "sh", "-c", "echo container > /app/container")
    await node.engine.docker("commit", container.id, "test:all-thin")
    await node.engine.docker("rm", "--force", container.id)
    descriptor = await read_descriptor(node.engine, "test:all-thin", tmp_path)
    assert len(descriptor.layers) == 4
    for layer in descriptor.layers[1:]:
        await stratum0.visible(Digest(layer.digest))
    # The committed container's own entry point is in the way.
    script = "cat /app/made /app/container; ls /etc/debian_version 2>/dev/null; true"
    options = ("--rm", "--network=none", "--entrypoint=sh")
    assert (await node.engine.docker("run", *options, "test:all-thin", "-c", script)).text == "built\ncontainer"
    await node.engine.docker("rmi", "test:all-thin", "test:mixed")


async def test_the_classic_builder_commits_every_step_to_the_repository(
    node: Node, stratum0: Stratum0, context: Path, tmp_path: Path
) -> None:
    await _build(node.engine, context, "classic", SMALL.format(base=THIN), "test:stepwise")
    descriptor = await read_descriptor(node.engine, "test:stepwise", tmp_path)
    # CMD changes no file.
    assert len(descriptor.layers) == 3
    assert await _run(node.engine, "test:stepwise") == "built"
    for layer in descriptor.layers[1:]:
        await stratum0.visible(Digest(layer.digest))
    assert sorted(os.listdir(stratum0.home(Digest(descriptor.layers[1].digest)) / "layerfs/app")) == ["script"]
    assert "debian_version" not in await _run(node.engine, "test:stepwise", "ls", "/etc")
    await node.engine.docker("rmi", "test:stepwise")


@pytest.mark.parametrize("builder", BUILDERS)
async def test_a_stage_can_be_thin_and_another_regular(node: Node, context: Path, builder: str) -> None:
    dockerfile = f"FROM {THIN} AS thin\nRUN echo thin > /made\nFROM {BASE}\nCOPY --from=thin /made /usr/bin/cat /\n"
    await _build(node.engine, context, builder, dockerfile, "test:stages")
    assert await _run(node.engine, "test:stages", "/cat", "/made") == "thin"
    await node.engine.docker("rmi", "test:stages")


async def test_a_dockerfile_can_make_a_thin_image(node: Node, context: Path, tmp_path: Path) -> None:
    descriptor = await read_descriptor(node.engine, THIN, tmp_path)
    (context / "context/thin.json").write_bytes(descriptor.encode())
    try:
        for builder in BUILDERS:
            dockerfile = 'FROM scratch\nCOPY context/thin.json /\nCMD ["echo", "thin"]\n'
            await _build(node.engine, context, builder, dockerfile, "test:made-thin")
            assert await _run(node.engine, "test:made-thin") == "thin"
            await node.engine.docker("rmi", "test:made-thin")
    finally:
        (context / "context/thin.json").unlink()
