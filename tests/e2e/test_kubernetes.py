"""The pods of deploy/kubernetes from their real images, with the rights that they have there: thin images run by them.

There is no kubelet here: a Docker Engine starts the containers as a node's containerd would, and another one, with a
containerd of its own, is who uses the snapshotter. The tests go on where the one before stopped.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from harness.commands import CommandError, run
from harness.containers import run_container
from harness.engine import Engine
from harness.processes import wait_until
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from services.snapshotter.kubernetes import kubernetes_snippet
from services.snapshotter.settings import SnapshotterSettings
from services.snapshotter.snippets import NAME, containerd_sections
from tests.support.e2e import REPOSITORY, THIN, Images
from tests.support.kubernetes import overlay, render
from tests.support.managed_plugin import CLIENT_SOURCE, serve_client_package
from tests.support.mounts import mounts_below
from tests.support.pods import Pod

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ROOT = Path(__file__).parents[2]
_BRIDGE = "172.30.0.1"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_SIZES = {"snapshotter": 200_000_000, "cvmfs-client": 200_000_000}
"""Images and the most bytes that they may have."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kubelet(builder: Engine, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """What runs pods, with their images, the stand-in for the CVMFS client in one of them."""
    await builder.docker("import", _ROOT / ".cache" / "debian-trixie-slim.tar", "debian:trixie-slim")
    async with (
        serve_client_package(tmp_path_factory.mktemp("packages") / "packages", _BRIDGE) as source,
        asyncio.TaskGroup() as builds,
    ):
        for target in _SIZES:
            options = (f"--target={target}", f"--tag=cvmfs-thin/{target}", f"--build-arg=CVMFS_SOURCE={source}")
            secret = f"--secret=id=ca_bundle,src={_CERTIFICATES}"
            builds.create_task(builder.docker("build", "--quiet", *options, secret, _ROOT, timeout=900))
    return builder


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node with both pods."""

    engine: Engine
    """Who uses the snapshotter: a dockerd with a containerd that is configured for it."""
    cvmfs: Path
    """Its /cvmfs."""
    source: Path
    """Where the stand-in for the client, in its pod, looks for repositories."""
    client: Pod
    snapshotter: Pod

    async def until_mounted(self) -> None:
        """Wait until the client's pod is ready."""

        async def ready() -> bool:
            try:
                await self.client.exec("cvmfs-client", "check")
            except CommandError:
                return False
            return True

        await wait_until(ready, what="the client answers")

    async def until_ready(self) -> None:
        """Wait until the snapshotter's pod is ready, and containerd has found it."""
        place = self.snapshotter.rendered.environment("snapshotter")["SNAPSHOTTER_METRICS"]

        async def healthy() -> bool:
            try:
                async with aiohttp.ClientSession() as session, session.get(f"http://{place}/healthz") as answer:
                    return answer.status == HTTPStatus.OK
            except aiohttp.ClientError:
                return False

        await wait_until(healthy, what="the snapshotter is healthy")

        async def reached() -> bool:
            # containerd, which has tried before, tries again after a second, or some.
            words = ("ctr", "--address", self.engine.containerd_socket, "snapshots", f"--snapshotter={NAME}")
            prepared = await run(*words, "prepare", "probe", accept=(0, 1))
            return prepared.returncode == 0 and (await run(*words, "remove", "probe")).returncode == 0

        await wait_until(reached, what="containerd reaches the snapshotter")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(
    kubelet: Engine, stratum0: Stratum0, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    """A node with thin images, and the pods of the overlay that has everything."""
    directory = tmp_path_factory.mktemp("node")
    rendered = render(overlay(directory / "site", "client-in-pods", commits=True))
    # Nothing may be made in the root of this machine. What others have to find is at the same place in the container.
    state, cvmfs, clients = directory / "state", directory / "cvmfs", directory / "clients"
    settings = SnapshotterSettings(state=state)
    engine = Engine(
        name="k8s",
        directory=directory / "engine",
        storage_driver=NAME,
        snapshotter=containerd_sections(settings),
    )
    pod = partial(
        Pod,
        engine=kubelet,
        rendered=rendered,
        directory=directory / "files",
        places={
            "/cvmfs": cvmfs,
            "/run/containerd": engine.containerd_socket.parent,
            "/run/cvmfs-snapshotter": settings.socket.parent,
            "/var/lib/cvmfs": clients,
            "/var/lib/cvmfs-snapshotter": state,
        },
    )
    node = Node(
        engine=engine,
        cvmfs=cvmfs,
        source=clients / Path(CLIENT_SOURCE).name,
        client=pod(
            name="cvmfs-client",
            image="cvmfs-thin/cvmfs-client",
            settings={"CVMFS_CLIENT_REPOSITORIES": REPOSITORY},
            options=(f"--mount=type=bind,source={stratum0.tree},target={CLIENT_SOURCE}/{REPOSITORY}",),
        ),
        snapshotter=pod(
            name="snapshotter",
            image="cvmfs-thin/snapshotter",
            moved={"/var/lib/cvmfs-snapshotter": state, "/cvmfs": cvmfs},
            settings={
                "LAYER_STORE_ENDPOINT": stratum0.access.endpoint,
                "LAYER_STORE_BUCKET": stratum0.access.bucket,
                "SNAPSHOTTER_REPOSITORIES": REPOSITORY,
                "SNAPSHOTTER_STATE": str(state),
                "SNAPSHOTTER_CVMFS_ROOT": str(cvmfs),
            },
            secrets={"access-key": stratum0.access.access_key, "secret-key": stratum0.access.secret_key},
            # The object store is on this machine.
            options=("--network=host",),
        ),
    )
    try:
        await engine.start()
        await node.client.start()
        await node.snapshotter.start()
        await node.until_mounted()
        await node.until_ready()
        await images.load_thin(engine)
        yield node
    finally:
        await engine.close()
        for name in ("snapshotter", "cvmfs-client"):
            await kubelet.docker("rm", "--force", name)


async def _run(engine: Engine, image: str, script: str) -> str:
    return (await engine.docker("run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", script)).text


async def test_images_are_small_and_labelled(kubelet: Engine) -> None:
    for name, most in _SIZES.items():
        (image,) = json.loads((await kubelet.docker("image", "inspect", f"cvmfs-thin/{name}")).stdout)
        assert image["Size"] < most
        prefix = "org.opencontainers.image."
        labels = image["Config"]["Labels"].keys()
        said = ("title", "description", "licenses", "version", "revision")
        assert {f"{prefix}{name}" for name in said} <= labels


async def test_the_image_writes_the_configuration(kubelet: Engine) -> None:
    arguments = ("config", "--containerd", "2", "--kubernetes")
    written = await kubelet.docker("run", "--rm", "--network=none", "cvmfs-thin/snapshotter", *arguments)
    assert written.text == kubernetes_snippet(SnapshotterSettings(), "2").strip()


async def test_a_thin_container_runs(node: Node) -> None:
    shown = await _run(node.engine, THIN, "echo debian $(cat /etc/debian_version); ls /thin.json 2>/dev/null || true")
    assert re.fullmatch(r"debian \S+", shown)


async def test_the_snapshotter_has_the_rights_of_the_manifest_and_no_others(node: Node) -> None:
    pid = await node.snapshotter.process()
    status = dict(re.findall(r"^(\w+):\t(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    added = node.snapshotter.rendered.container("snapshotter")["securityContext"]["capabilities"]["add"]
    assert int(status["CapBnd"], 16).bit_count() == len(added)
    assert status["Seccomp"] == "2"
    root = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()[0].split()
    assert (root[4], root[5].split(",")[0]) == ("/", "ro")


async def test_a_commit_is_published_and_runs(node: Node, stratum0: Stratum0, tmp_path: Path) -> None:
    engine = node.engine
    script = (
        "echo committed >/committed; mkdir -m 700 /of-user; chown 1000:1000 /of-user; mknod /null c 1 3; rm /etc/issue"
    )
    await engine.docker("run", "--name=one", "--network=none", THIN, "sh", "-ec", script)
    await engine.docker("commit", "one", "test:committed")
    await engine.docker("rm", "one")
    show = "cat /committed; stat -c '%U %a %F' /of-user /null | head -1; ls /etc/issue 2>&1 | wc -l"
    before = await _run(engine, "test:committed", show)
    assert before.startswith("committed\n")
    descriptor = await read_descriptor(engine, "test:committed", tmp_path)
    await stratum0.visible(descriptor.layers[-1].id)
    assert await _run(engine, "test:committed", show) == before
    await engine.docker("rmi", "test:committed")


async def test_the_snapshotter_is_replaced_under_running_containers(node: Node) -> None:
    container = await run_container(node.engine, THIN)
    await node.engine.docker("exec", container.id, "sh", "-c", "echo kept >/kept")
    await node.snapshotter.delete()
    assert (await node.engine.docker("exec", container.id, "cat", "/kept")).text == "kept"
    with pytest.raises(CommandError):
        await _run(node.engine, THIN, "true")
    await node.snapshotter.start()
    await node.until_ready()
    assert await _run(node.engine, THIN, "echo runs") == "runs"
    await node.engine.docker("restart", container.id)
    assert (await node.engine.docker("exec", container.id, "cat", "/kept", "/etc/debian_version")).text
    await node.engine.docker("rm", "--force", container.id)


@pytest.mark.parametrize(
    ("repositories", "command", "reason"),
    [
        ("", "", "CVMFS_CLIENT_REPOSITORIES is not set"),
        ("one.example.org,../two", "", "no repository name: ../two"),
        (f"one.example.org,{REPOSITORY}", "", f"{REPOSITORY} is mounted already"),
        (f"{REPOSITORY},one.example.org", "check", "one.example.org does not answer at /cvmfs/one.example.org"),
        (REPOSITORY, "mount", "unknown argument mount"),
    ],
)
async def test_a_client_that_can_do_nothing_says_why(node: Node, repositories: str, command: str, reason: str) -> None:
    options = (f"--volume={node.cvmfs}:/cvmfs:rshared", f"--env=CVMFS_CLIENT_REPOSITORIES={repositories}")
    arguments = ("run", "--rm", "--network=none", *options, "cvmfs-thin/cvmfs-client", *command.split())
    with pytest.raises(CommandError, match=re.escape(reason)):
        await node.client.engine.docker(*arguments)


async def test_a_client_whose_mounts_nobody_would_see_says_so(node: Node) -> None:
    options = ("--network=none", f"--env=CVMFS_CLIENT_REPOSITORIES={REPOSITORY}")
    with pytest.raises(CommandError, match="/cvmfs is no shared mount"):
        await node.client.engine.docker("run", "--rm", *options, "cvmfs-thin/cvmfs-client")


async def test_a_client_that_died_is_started_again(node: Node) -> None:
    await node.client.exec("sh", "-c", f"kill -9 $(cat {CLIENT_SOURCE}/{REPOSITORY}.pid)")

    async def noticed() -> bool:
        return f"the client of {REPOSITORY} has ended" in await node.client.log()

    await wait_until(noticed, what="the end of the client is noticed")
    await node.until_mounted()
    assert await _run(node.engine, THIN, "cat /etc/debian_version")


async def test_a_client_that_was_killed_with_its_pod_is_in_nobodys_way(node: Node) -> None:
    await node.client.engine.docker("rm", "--force", "cvmfs-client")
    assert mounts_below(node.cvmfs) == [str(node.cvmfs / REPOSITORY)]
    await node.client.start()
    await node.until_mounted()
    assert await _run(node.engine, THIN, "cat /etc/debian_version")


async def test_a_client_ends_at_once_where_nobody_uses_it(node: Node) -> None:
    before = time.monotonic()
    await node.client.delete()
    assert time.monotonic() - before < node.client.rendered.pod("cvmfs-client")["terminationGracePeriodSeconds"]
    # It has taken off what it mounted.
    assert mounts_below(node.cvmfs) == []
