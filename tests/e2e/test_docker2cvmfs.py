"""An ordinary image of a registry becomes a thin image, and runs as the ordinary one does."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.containers import run_container
from harness.engine import Engine
from harness.node import Node
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from harness.trees import CONTAINER_EXCLUSIONS, Tree, differences, read_directory
from services.common.archive.compression import open_archive
from services.common.archive.limits import ArchiveLimits
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.unpack import unpack
from services.common.digest import Digest
from services.common.layout import layer_tree
from services.thin_image.image import LABEL_DIGEST, LABEL_ORIGIN, LABEL_REPOSITORY
from tests.support.commands import Ended, docker2cvmfs
from tests.support.e2e import BASE, REPOSITORY, Images, Nodes
from tests.support.registries import RegistryServer, run_program

pytestmark = pytest.mark.asyncio(loop_scope="session")

_LAYERS = (
    "mkdir -p /a/b/c /gone/deep /again; cd /a; echo 1 > b/c/file; echo x > /gone/deep/file; ln -s file link",
    "cd /a; echo old > /again/old; ln b/c/file hard; chmod 4751 b/c/file; chown 12:34 b",
    "rm -r /gone /a/b/c/file /etc/issue; rm -r /again; mkdir /again; echo new > /again/new; chmod 700 /a",
    "rm /a/link; mkdir /a/link; echo file > /gone; touch -d @1000000000.5 /a/hard; rm -r /home; echo z > /home",
)
_CHANGES = (
    "ENV KEY=value",
    'ENTRYPOINT ["/bin/sh","-c"]',
    'CMD ["sleep infinity"]',
    "USER 12:34",
    "WORKDIR /srv",
    "LABEL org.example.label=kept",
    "EXPOSE 8080/tcp",
    "VOLUME /data",
    "STOPSIGNAL SIGUSR1",
    'HEALTHCHECK --interval=1h CMD ["true"]',
    "ONBUILD RUN true",
)


_CONTAINERFILE = """\
FROM scratch
ARG TARGETARCH
ENV ARCH=$TARGETARCH
ADD base-layer.tar /
COPY file /a/one
COPY file /a/two
RUN rm -r /a/one /etc/issue && mkdir /a/one && chown 12:34 /a/two
ENV KEY=value
VOLUME /data
USER 12:34
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where images come from, and what the converter is told."""

    registry: str
    image: str
    env: Mapping[str, str]
    url: str

    async def run(self, command: str, *arguments: object) -> Ended:
        """Run a command for the image and the repository."""
        return await docker2cvmfs(
            command, "--insecure", self.image, REPOSITORY, "--publisher", self.url, *arguments, env=self.env
        )


async def _commit_layers(engine: Engine, name: str) -> None:
    """Make an image whose upper layers change and delete what lower ones hold."""
    parent = BASE
    for number, script in enumerate(_LAYERS):
        made = await engine.docker("create", "--network=none", parent, "sh", "-ec", script)
        await engine.docker("start", "--attach", made.text)
        last = number == len(_LAYERS) - 1
        changes = [f"--change={change}" for change in _CHANGES] if last else []
        parent = name if last else f"test:step-{number}"
        await engine.docker("commit", *changes, made.text, parent)
        await engine.docker("rm", made.text)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def built(site: Site, images: Images, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """An index of two platforms that buildah made, with layers that zstd compressed."""
    directory, name = tmp_path_factory.mktemp("buildah"), f"{site.registry}/built/both:1"
    context = directory / "context"
    context.mkdir()
    (context / "base-layer.tar").hardlink_to(images.base)
    (context / "file").write_text("content")
    (context / "Containerfile").write_text(_CONTAINERFILE)
    buildah = ("buildah", "--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", "vfs")
    # The other platform's layers are this one's: nothing of them runs here but while they are made.
    # Its default limits are higher than some machines let anybody set.
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    build = ("build", "--layers", "--isolation", "chroot", "--network", "host", *limits, "--manifest", "both")
    for platform in ("linux/amd64", "linux/arm64"):
        await run_program(*buildah, *build, "--platform", platform, str(context))
    push = ("manifest", "push", "--all", "--tls-verify=false", "--compression-format", "zstd", "--force-compression")
    await run_program(*buildah, *push, "both", f"docker://{name}")
    yield name
    await asyncio.to_thread(shutil.rmtree, directory)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(stratum0: Stratum0, overlay2: Engine, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A registry with an image of several layers."""
    async with RegistryServer.run(tmp_path_factory.mktemp("registry") / "registry") as registry:
        image = f"{registry.address}/team/image:1.0"
        await _commit_layers(overlay2, image)
        await overlay2.docker("push", image)
        yield Site(registry=registry.address, image=image, env=stratum0.store.environment, url=stratum0.url)


async def _tree(engine: Engine, image: str) -> Tree:
    container = await run_container(engine, image)
    try:
        tree = await asyncio.to_thread(read_directory, container.root, exclusions=CONTAINER_EXCLUSIONS)
        # A volume is no part of the image: every container is given a new one.
        del tree[b"data"]
        return tree
    finally:
        await engine.docker("rm", "--force", "--volumes", container.id)


async def _inspect(engine: Engine, image: str) -> dict[str, object]:
    (document,) = json.loads((await engine.docker("image", "inspect", image)).text)
    return {name: document[name] for name in ("Config", "Architecture", "Os")}


async def test_a_converted_image_runs_as_the_ordinary_one_does(site: Site, node: Node, overlay2: Engine) -> None:
    before = json.loads((await site.run("status", "--json")).out)
    assert [layer["place"] for layer in before["layers"]] == ["nowhere"] * (1 + len(_LAYERS))
    assert before["to_transfer"] == sum(layer["size"] for layer in before["layers"])

    environment = {**site.env, **node.engine.docker_env}
    made = await docker2cvmfs(
        *("make-thin", "--insecure", site.image, REPOSITORY, "--publisher", site.url),
        *("--load", "--tag", "converted:thin", "--json"),
        env=environment,
    )

    assert made.status == 0, made.errors
    document = json.loads(made.out)
    assert [layer["outcome"] for layer in document["layers"]] == ["uploaded"] * (1 + len(_LAYERS))
    trees = [await _tree(node.engine, "converted:thin"), await _tree(overlay2, site.image)]
    assert differences(*trees, names=("thin", "overlay2")) == []
    assert b"gone/deep" not in trees[0]
    assert b"again/old" not in trees[0]
    thin, ordinary = await _inspect(node.engine, "converted:thin"), await _inspect(overlay2, site.image)
    labels = thin["Config"]["Labels"]  # type: ignore[index]  # a JSON document
    assert labels.pop(LABEL_ORIGIN) == f"team/image:1.0@http://{site.image.split('/')[0]}/v2"
    assert labels.pop(LABEL_DIGEST).startswith("sha256:")
    assert labels.pop(LABEL_REPOSITORY) == REPOSITORY
    assert thin == ordinary
    after = json.loads((await site.run("status", "--json")).out)
    assert {layer["place"] for layer in after["layers"]} == {"repository"}
    assert after["to_transfer"] == 0


async def test_a_thin_image_that_is_pushed_is_pulled_and_runs(site: Site, node: Node, overlay2: Engine) -> None:
    tag = f"{site.image}-thin"
    digests = []
    for _ in range(2):
        made = await site.run("make-thin", "--push", "--tag", tag, "--json")
        assert made.status == 0, made.errors
        document = json.loads(made.out)
        digests.append(document["digest"])
    assert {layer["outcome"] for layer in document["layers"]} == {"already published"}
    assert digests[0] == digests[1], "the same input gives the same digest"

    await node.engine.docker("pull", tag)

    assert differences(await _tree(node.engine, tag), await _tree(overlay2, site.image)) == []


async def test_files_are_loaded_as_well(site: Site, node: Node, tmp_path: Path) -> None:
    contents = []
    for number in range(2):
        path = tmp_path / f"{number}.tar"
        made = await site.run("make-thin", "--output", path, "--tag", "from-file:thin")
        assert made.status == 0, made.errors
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    await node.engine.docker("load", input=tmp_path / "0.tar")
    assert (await node.engine.docker("image", "inspect", "--format={{.Config.User}}", "from-file:thin")).text == "12:34"


async def test_without_an_engine_the_error_says_so(site: Site, tmp_path: Path) -> None:
    made = await docker2cvmfs(
        *("make-thin", "--insecure", site.image, REPOSITORY, "--publisher", site.url, "--load"),
        env={**site.env, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"},
    )
    assert made.status == 6
    assert "docker load failed" in made.errors


async def test_an_index_of_two_platforms_becomes_an_index_of_thin_images(
    site: Site, built: str, node: Node, overlay2: Engine
) -> None:
    async def run(command: str, image: str, *arguments: object) -> Any:  # noqa: ANN401 - a JSON document
        ended = await docker2cvmfs(command, "--insecure", image, *arguments, "--json", env=site.env)
        assert ended.status == 0, ended.errors
        return json.loads(ended.out)

    tag = f"{site.registry}/built/thin:1"
    made = await run(
        *("make-thin", built, REPOSITORY, "--publisher", site.url),
        *("--all-platforms", "--layout", "ducc", "--push", "--tag", tag),
    )

    original = (await run("manifest", built))["manifest"]
    for entry in original["manifests"]:
        image = (await run("manifest", f"{built.rpartition(':')[0]}@{entry['digest']}"))["manifest"]
        assert {layer["mediaType"] for layer in image["layers"]} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    index = await run("manifest", tag)
    assert index["digest"] == made["digest"]
    assert [entry["platform"]["architecture"] for entry in index["manifest"]["manifests"]] == ["amd64", "arm64"]
    assert [entry["digest"] for entry in index["manifest"]["manifests"]] == [
        image["manifest"] for image in made["images"]
    ]
    for platform in ("linux/amd64", "linux/arm64"):
        config = (await run("config", tag, "--platform", platform))["config"]
        assert f"{config['os']}/{config['architecture']}" == platform
        assert len(config["rootfs"]["diff_ids"]) == 1
        assert config["config"]["Env"][-2:] == [f"ARCH={config['architecture']}", "KEY=value"]
        assert config["config"]["User"] == "12:34"

    for engine, image in ((node.engine, tag), (overlay2, built)):
        await engine.docker("pull", image)
    trees = [await _tree(node.engine, tag), await _tree(overlay2, built)]
    assert differences(*trees, names=("thin", "overlay2")) == []
    assert b"a/one" in trees[0]
    assert b"etc/issue" not in trees[0]


async def test_a_container_of_a_converted_image_is_committed(
    site: Site, node: Node, nodes: Nodes, tmp_path: Path
) -> None:
    name = f"{site.registry}/team/committed:1"
    made = await docker2cvmfs(
        *("make-thin", "--insecure", site.image, REPOSITORY, "--publisher", site.url, "--load", "--tag", "base:thin"),
        env={**site.env, **node.engine.docker_env},
    )
    assert made.status == 0, made.errors
    container = await run_container(node.engine, "base:thin")
    script = "rm /etc/passwd /a/hard; echo changed > /gone; mkdir /a/new; ln /gone /a/new/hard"
    await node.engine.docker("exec", "--user=0", container.id, "sh", "-ec", script)
    changed = await asyncio.to_thread(read_directory, container.root, exclusions=CONTAINER_EXCLUSIONS)

    await node.engine.docker("commit", container.id, name)
    await node.engine.docker("rm", "--force", "--volumes", container.id)

    before, after = [await read_descriptor(node.engine, image, tmp_path) for image in ("base:thin", name)]
    assert after.layers[:-1] == before.layers
    assert after.origin == before.origin
    configs: list[Any] = [(await _inspect(node.engine, image))["Config"] for image in ("base:thin", name)]
    for kept in ("Env", "Labels", "ExposedPorts", "Volumes", "Healthcheck", "WorkingDir"):
        assert configs[0][kept] == configs[1][kept]
    await node.engine.docker("push", name)
    elsewhere = await nodes.start()
    await elsewhere.engine.docker("pull", name)
    del changed[b"data"]
    assert differences(changed, await _tree(elsewhere.engine, name)) == []


async def test_what_another_converter_published_runs_with_nothing_published(
    site: Site, stratum0: Stratum0, nodes: Nodes, overlay2: Engine, tmp_path: Path
) -> None:
    repository = "unpacked.example.org"
    pulled = await docker2cvmfs("pull", "--insecure", site.image, tmp_path, "--json")
    for archive in map(Path, json.loads(pulled.out)["layers"]):
        digest = Digest(archive.name.partition(".")[0])
        await asyncio.to_thread(_ingest, archive, stratum0.cvmfs_root / repository / layer_tree(digest))
    node = await nodes.start(driver_env={"GRAPHDRIVER_REPOSITORIES": f"{REPOSITORY},{repository}"})

    made = await docker2cvmfs(
        *("make-thin", "--insecure", site.image, repository, "--layout", "ducc", "--no-publish"),
        *("--load", "--tag", "unpacked:thin"),
        env=node.engine.docker_env,
    )

    assert made.status == 0, made.errors
    assert made.out.decode() == "nothing published\nthin image: unpacked:thin\n"
    assert differences(await _tree(node.engine, "unpacked:thin"), await _tree(overlay2, site.image)) == []


def _ingest(archive: Path, tree: Path) -> None:
    """Unpack a layer as DUCC publishes it: deletions as overlayfs has them, and no sidecar (blocking)."""
    limits = ArchiveLimits()
    tree.mkdir(parents=True)
    with archive.open("rb", buffering=0) as file:
        unpack(open_archive(file, limits=limits), tree, deletions=OverlayDeletions(), limits=limits)
