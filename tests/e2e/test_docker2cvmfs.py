"""An ordinary image of a registry becomes a thin image, and runs as the ordinary one does."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from harness.containers import run_container
from harness.engine import Engine
from harness.node import Node
from harness.stratum0 import Stratum0
from harness.trees import CONTAINER_EXCLUSIONS, Tree, differences, read_directory
from services.docker2cvmfs.thin_image import LABEL_DIGEST, LABEL_ORIGIN, LABEL_REPOSITORY
from tests.support.commands import Ended, docker2cvmfs
from tests.support.e2e import BASE, REPOSITORY
from tests.support.registries import RegistryServer

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


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where images come from, and what the converter is told."""

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
async def site(stratum0: Stratum0, overlay2: Engine, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A registry with an image of several layers."""
    async with RegistryServer.run(tmp_path_factory.mktemp("registry") / "registry") as registry:
        image = f"{registry.address}/team/image:1.0"
        await _commit_layers(overlay2, image)
        await overlay2.docker("push", image)
        yield Site(image=image, env=stratum0.store.environment, url=stratum0.url)


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
