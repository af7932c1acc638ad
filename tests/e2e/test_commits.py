"""Commits of thin containers: uploaded, run at once, published, run elsewhere, and nothing lost when that fails."""

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
from harness.processes import wait_until
from harness.s3 import s3_client
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from harness.trees import differences
from services.common.descriptor import ThinDescriptor
from services.common.digest import Digest
from tests.support.e2e import Images, Nodes
from tests.support.edits import make_edits
from tests.support.fault_proxy import Answer, Fault, FaultProxy, stall
from tests.support.mounts import mounts_below
from tests.support.playground import read_image, run_script, tree

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGE = "test:playground"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def proxy(stratum0: Stratum0) -> AsyncIterator[FaultProxy]:
    """What stands between the node and its object store."""
    async with FaultProxy.before(stratum0.store.endpoint) as proxy:
        yield proxy


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def committing(
    nodes: Nodes, images: Images, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    """A node with a thin image of two layers."""
    node = await nodes.start(
        driver_env={
            "LAYER_STORE_ENDPOINT": proxy.endpoint,
            "LAYER_STORE_RETRY_SECONDS": "1",
            "GRAPHDRIVER_COPY_INTERVAL": "0.3",
            "GRAPHDRIVER_PUBLISH_WAIT": "2",
        }
    )
    directory = tmp_path_factory.mktemp("playground")
    write_playground(directory / "playground.tar")
    images.write_thin(IMAGE, images.published.thin, await images.publish(directory / "playground.tar"))
    await images.load_thin(node.engine, IMAGE)
    yield node
    assert (await node.engine.docker("ps", "--all", "--quiet")).text == ""
    await node.stop()
    assert mounts_below(node.directory) == []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def elsewhere(nodes: Nodes) -> AsyncIterator[Node]:
    """Another node, which gets nothing but descriptors."""
    node = await nodes.start(driver_env={"GRAPHDRIVER_PUBLISH_WAIT": "300"})
    yield node
    await node.stop()
    assert mounts_below(node.directory) == []


@pytest.fixture
async def container(committing: Node) -> AsyncIterator[Container]:
    """A running container of the thin image."""
    container = await run_container(committing.engine, IMAGE)
    yield container
    await committing.engine.docker("rm", "--force", container.id)


async def _write(engine: Engine, container: Container, path: str, content: str) -> None:
    await engine.docker("exec", container.id, "sh", "-c", f"echo {content} > {path}")


async def _digests(engine: Engine, image: str, directory: Path) -> list[Digest]:
    return [layer.id for layer in (await read_descriptor(engine, image, directory)).layers]


async def _images(engine: Engine) -> set[str]:
    return set((await engine.docker("images", "--all", "--quiet")).text.split())


async def _stored(stratum0: Stratum0) -> set[str]:
    async with s3_client(stratum0.store.access) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=stratum0.store.bucket, Prefix="sha256/")
        return {item["Key"].removeprefix("sha256/") async for page in pages for item in page.get("Contents", ())}


def _copies(node: Node) -> set[str]:
    return {path.name for path in (node.engine.data_root / node.name / "copies").iterdir()}


async def _no_copies(node: Node) -> None:
    async def gone() -> bool:
        return not _copies(node)

    await wait_until(gone, what="the local copies are dropped")


async def test_the_whole_circle(
    committing: Node, elsewhere: Node, container: Container, stratum0: Stratum0, tmp_path: Path
) -> None:
    """Every kind of change is committed, runs before it is published and after, here and elsewhere."""
    await make_edits(container.pid)
    before = tree(container)
    await stratum0.publisher.stop()
    try:
        await committing.engine.docker("commit", container.id, "test:committed")
        *_, digest = await _digests(committing.engine, "test:committed", tmp_path)
        assert not stratum0.home(digest).exists()
        at_once = await read_image(committing.engine, "test:committed")
        assert differences(before, at_once, names=("container", "before publication")) == []
        assert digest in _copies(committing)
        await committing.engine.docker("save", "test:committed", output=tmp_path / "committed.tar")
        await elsewhere.engine.docker("load", input=tmp_path / "committed.tar")
        # Elsewhere the layer is waited for.
        waiting = asyncio.create_task(read_image(elsewhere.engine, "test:committed"))
        await asyncio.sleep(0.5)
        assert not waiting.done()
    finally:
        await stratum0.start_publisher()
    assert differences(before, await waiting, names=("container", "elsewhere")) == []
    await stratum0.visible(digest)
    await _no_copies(committing)
    assert (
        differences(before, await read_image(committing.engine, "test:committed"), names=("container", "published"))
        == []
    )
    assert (tmp_path / "committed.tar").stat().st_size < 200_000
    for node in (committing, elsewhere):
        await node.engine.docker("rmi", "test:committed")


async def test_what_is_committed_is_what_overlay2_commits(
    committing: Node, container: Container, overlay2: Engine, images: Images, tmp_path: Path
) -> None:
    write_playground(tmp_path / "playground.tar")
    write_image(tmp_path / "image.tar", name=IMAGE, layers=[images.base, tmp_path / "playground.tar"])
    await overlay2.docker("load", input=tmp_path / "image.tar")
    theirs = await run_container(overlay2, IMAGE)
    trees = []
    for engine, changed in ((committing.engine, container), (overlay2, theirs)):
        await make_edits(changed.pid)
        await engine.docker("commit", changed.id, "test:compared")
        trees.append(await read_image(engine, "test:compared"))
        await engine.docker("rmi", "test:compared")
    await overlay2.docker("rm", "--force", theirs.id)
    await overlay2.docker("rmi", IMAGE)
    # What this version of the engine loses on its own way: fractions of seconds, times before 1970, users' attributes.
    lost = re.compile(r"playground.*: (mtime|xattrs) |^playground: mtime ")
    left = [line for line in differences(*trees, names=("thin", "overlay2")) if not lost.search(line)]
    assert left == []


async def test_a_chain_of_commits(committing: Node, stratum0: Stratum0, tmp_path: Path) -> None:
    image = IMAGE
    digests: list[Digest] = []
    for number in (1, 2, 3):
        container = await run_container(committing.engine, image)
        await _write(committing.engine, container, "/chain", str(number))
        await _write(committing.engine, container, f"/only-{number}", str(number))
        if number > 1:
            await committing.engine.docker("exec", container.id, "rm", f"/only-{number - 1}")
        image = f"test:chain-{number}"
        await committing.engine.docker("commit", f"--change=ENV NUMBER={number}", container.id, image)
        await committing.engine.docker("rm", "--force", container.id)
        before, digests = digests, await _digests(committing.engine, image, tmp_path)
        assert digests[:-1] == (before or digests[:-1])
    assert len(digests) == 5
    for digest in digests:
        await stratum0.visible(digest)
    assert await run_script(committing.engine, image, "cat /chain; ls -d /only*; echo $NUMBER") == "3\n/only-3\n3"
    # The configuration of an image is the engine's affair and is kept.
    environment = await committing.engine.docker("image", "inspect", "--format={{.Config.Env}}", image)
    assert environment.text == "[NUMBER=3]"
    await committing.engine.docker("rmi", *(f"test:chain-{number}" for number in (1, 2, 3)))


async def test_local_layers_are_uploaded_with_the_container_base_first(
    committing: Node, images: Images, stratum0: Stratum0, tmp_path: Path
) -> None:
    tars = []
    for name, content in (
        ("thin.json", ThinDescriptor.of(images.published.thin).encode()),
        ("first", b"local layer"),
        ("second", b"local layer"),
    ):
        tars.append(tmp_path / f"{name}.tar")
        with tarfile.open(tars[-1], "w") as tar:
            for file in (name, "last"):
                if file != "last" or name != "thin.json":
                    member = tarfile.TarInfo(file)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    write_image(tmp_path / "local.tar", name="test:local", layers=tars)
    await committing.engine.docker("load", input=tmp_path / "local.tar")
    container = await run_container(committing.engine, "test:local")
    await _write(committing.engine, container, "/last", "container")
    await committing.engine.docker("commit", container.id, "test:uploaded")
    await committing.engine.docker("rm", "--force", container.id)
    base, *added = await _digests(committing.engine, "test:uploaded", tmp_path)
    assert base == images.published.thin.digest
    for digest in added:
        await stratum0.visible(digest)
    files = [{path.name for path in (stratum0.home(digest) / "layerfs").iterdir()} for digest in added]
    assert files == [{"first", "last"}, {"second", "last"}, {"last"}]
    assert (
        await run_script(committing.engine, "test:uploaded", "cat /last; ls /first /second")
        == "container\n/first\n/second"
    )
    await committing.engine.docker("rmi", "test:uploaded", "test:local")


async def test_an_unchanged_container_uploads_nothing(
    committing: Node, container: Container, stratum0: Stratum0, proxy: FaultProxy, tmp_path: Path
) -> None:
    stored, asked = await _stored(stratum0), len(proxy.requests)
    await committing.engine.docker("commit", "--change=CMD true", container.id, "test:unchanged")
    assert await _stored(stratum0) == stored
    assert proxy.requests[asked:] == []
    digests = [await _digests(committing.engine, image, tmp_path) for image in (IMAGE, "test:unchanged")]
    assert digests[0] == digests[1]
    assert await run_script(committing.engine, "test:unchanged", "cat /playground/untouched/file | head -c 14") == (
        "untouched/file"
    )
    await committing.engine.docker("rmi", "test:unchanged")


async def test_the_same_container_again_uploads_nothing_new(
    committing: Node, container: Container, stratum0: Stratum0, tmp_path: Path
) -> None:
    await _write(committing.engine, container, "/same", "same")
    for name in ("test:first", "test:second"):
        await committing.engine.docker("commit", container.id, name)
    first, second = [await _digests(committing.engine, name, tmp_path) for name in ("test:first", "test:second")]
    assert first == second
    await stratum0.visible(first[-1])
    await committing.engine.docker("rmi", "test:first", "test:second")


@pytest.mark.parametrize("fault", [Answer(503, "SlowDown"), Answer(403, "AccessDenied"), None])
async def test_a_store_that_fails_fails_the_commit_and_nothing_is_lost(
    committing: Node, container: Container, proxy: FaultProxy, stratum0: Stratum0, tmp_path: Path, fault: Answer | None
) -> None:
    await _write(committing.engine, container, "/precious", "precious")
    images_before = await _images(committing.engine)
    if fault is None:

        async def refuse(_position: int, _data: bytes) -> bytes:
            raise ConnectionResetError

        proxy.faults = [Fault("^PUT ", times=1000, request=refuse)]
    else:
        proxy.faults = [Fault("^PUT ", times=1000, answer=fault)]
    reason = {503: "overloaded", 403: "access denied", 0: "connection failed"}[fault.status if fault else 0]
    with pytest.raises(CommandError, match=f"was not committed: uploading sha256/.*{reason}"):
        await committing.engine.docker("commit", container.id, "test:failed")
    proxy.faults = []
    assert await _images(committing.engine) == images_before
    # The container runs on with what it had, and a later commit succeeds.
    assert (await committing.engine.docker("exec", container.id, "cat", "/precious")).text == "precious"
    await committing.engine.docker("commit", container.id, "test:later")
    assert await run_script(committing.engine, "test:later", "cat /precious") == "precious"
    *_, digest = await _digests(committing.engine, "test:later", tmp_path)
    await stratum0.visible(digest)
    await committing.engine.docker("rmi", "test:later")


async def test_a_driver_killed_during_the_upload_loses_nothing(
    committing: Node, container: Container, proxy: FaultProxy, stratum0: Stratum0, tmp_path: Path
) -> None:
    await _no_copies(committing)
    await _write(committing.engine, container, "/precious", "precious")
    proxy.faults = [Fault("^PUT ", times=1000, request=stall(0))]
    asked = len(proxy.requests)
    commit = asyncio.create_task(committing.engine.docker("commit", container.id, "test:killed"))

    async def uploading() -> bool:
        return any(line.startswith("PUT ") for line in proxy.requests[asked:])

    await wait_until(uploading, what="the upload begins")
    await committing.driver.kill()
    proxy.faults = []
    await committing.start_driver()
    with pytest.raises(CommandError):
        await commit
    assert _copies(committing) == set()
    home = committing.engine.data_root / committing.name
    assert list((home / "spool").iterdir()) == []
    assert (await committing.engine.docker("exec", container.id, "cat", "/precious")).text == "precious"
    await committing.engine.docker("commit", container.id, "test:again")
    *_, digest = await _digests(committing.engine, "test:again", tmp_path)
    await stratum0.visible(digest)
    assert await run_script(committing.engine, "test:again", "cat /precious") == "precious"
    await committing.engine.docker("rmi", "test:again")


async def test_a_committed_image_outlives_a_killed_driver_before_it_is_published(
    committing: Node, container: Container, stratum0: Stratum0, tmp_path: Path
) -> None:
    await _no_copies(committing)
    await _write(committing.engine, container, "/early", "early")
    await stratum0.publisher.stop()
    try:
        await committing.engine.docker("commit", container.id, "test:early")
        running = await run_container(committing.engine, "test:early")
        await committing.driver.kill()
        await committing.start_driver()
        assert (await committing.engine.docker("exec", running.id, "cat", "/early")).text == "early"
        assert await run_script(committing.engine, "test:early", "cat /early") == "early"
    finally:
        await stratum0.start_publisher()
    *_, digest = await _digests(committing.engine, "test:early", tmp_path)
    await stratum0.visible(digest)
    # It stands on the copy's tree as long as it runs.
    await asyncio.sleep(1)
    assert _copies(committing) == {digest}
    assert (await committing.engine.docker("exec", running.id, "cat", "/early")).text == "early"
    await committing.engine.docker("rm", "--force", running.id)
    await _no_copies(committing)
    await committing.engine.docker("rmi", "test:early")


async def test_status_shows_what_waits_to_be_published(
    committing: Node, container: Container, stratum0: Stratum0
) -> None:
    async def waiting() -> str:
        pairs = json.loads((await committing.engine.docker("info", "--format={{json .DriverStatus}}")).text)
        return str(dict(pairs)["Layers waiting to be published"])

    await _no_copies(committing)
    assert await waiting() == "0"
    await _write(committing.engine, container, "/pending", "pending")
    await stratum0.publisher.stop()
    try:
        await committing.engine.docker("commit", container.id, "test:pending")
        assert await waiting() == "1"
    finally:
        await stratum0.start_publisher()
    await _no_copies(committing)
    assert await waiting() == "0"
    await committing.engine.docker("rmi", "test:pending")


async def test_a_container_that_has_ended_and_one_that_is_not_paused(
    committing: Node, container: Container, tmp_path: Path
) -> None:
    await _write(committing.engine, container, "/state", "running")
    await committing.engine.docker("commit", "--pause=false", container.id, "test:running")
    await committing.engine.docker("stop", container.id)
    (tmp_path / "file").write_text("stopped")
    await committing.engine.docker("cp", tmp_path / "file", f"{container.id}:/state")
    await committing.engine.docker("commit", container.id, "test:stopped")
    for state in ("running", "stopped"):
        assert await run_script(committing.engine, f"test:{state}", "cat /state") == state
    await committing.engine.docker("rmi", "test:running", "test:stopped")
