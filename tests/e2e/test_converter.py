"""From a push to a registry to a thin image that runs, and what becomes of the old one when the tag moves on.

The registry's own webhook is all that tells the converter: it polls once an hour.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from harness.commands import run
from harness.containers import Container
from harness.converter import Converter
from harness.engine import Engine
from harness.images import write_image
from harness.node import Node
from harness.processes import wait_until
from harness.registry import Registry
from harness.stratum0 import Stratum0
from services.common.digest import Digest
from services.publisher.settings import RepositoryKind
from services.repository.native.reader.reader import RepositoryReader
from tests.support.cvmfs_client import follow
from tests.support.e2e import REPOSITORY, write_base
from tests.support.tars import archive, member

pytestmark = pytest.mark.asyncio(loop_scope="session")

_PATIENCE: Final = 300
_WISHES: Final = """\
version: 2
defaults:
  repositories: {repository}
  thin: "{registry}/thin/$(image)"
  interval: 1h
images:
  - image: {registry}/physics/tool:moving
    retention: {{replaced: 1s}}
  - image: {registry}/physics/tool:kept
    retention: {{replaced: 30d}}
"""
_TAGS: Final = ("moving", "kept")
_OPEN: Final = "exec 3</payload; exec sleep infinity"
"""What containers do: they have a file of the image open."""
_MANIFESTS: Final = {
    "Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
}


@dataclass(kw_only=True)
class Site:
    """Everything there is, each once."""

    directory: Path
    stratum0: Stratum0
    registry: Registry
    converter: Converter
    node: Node
    base: Path
    session: aiohttp.ClientSession

    async def push(self, tag: str, version: str) -> None:
        """Push an image whose `/payload` says which it is."""
        payload, image = self.directory / "payload.tar", self.directory / "image.tar"
        payload.write_bytes(archive(member(b"payload", f"{tag} {version}".encode())))
        name = f"physics/tool:{tag}"
        write_image(image, name=name, layers=[self.base, payload], config={"Cmd": ["bash"]})
        destination = f"docker://{self.registry.address}/{name}"
        await run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"docker-archive:{image}", destination)

    async def manifest(self, repository: str, tag: str) -> bytes | None:
        """Return a manifest's bytes as the registry has them; None if there is no such image."""
        url = f"http://{self.registry.address}/v2/{repository}/manifests/{tag}"
        async with self.session.get(url, headers=_MANIFESTS) as response:
            return await response.read() if response.ok else None

    async def image(self, tag: str) -> dict[str, Any]:
        """Return what the publisher says of an image."""
        url = f"{self.stratum0.url}/v1/images/{self.registry.address}/physics/tool:{tag}"
        async with self.session.get(url) as response:
            document: dict[str, Any] = await response.json()
            return document

    async def collect(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Have the publisher take out what no image names."""
        headers = {"Authorization": f"Bearer {self.stratum0.token}"}
        url = f"{self.stratum0.url}/v1/collection"
        async with self.session.post(url, json={"dry_run": dry_run}, headers=headers) as response:
            assert response.ok, await response.text()
            document: dict[str, Any] = await response.json()
            return document

    async def published(self, tag: str) -> Digest:
        """Wait until clients see an image as the registry has it now; return the digest of its upper layer."""
        wanted = await self.manifest("physics/tool", tag)
        assert wanted is not None
        shown = self.stratum0.tree / ".metadata" / self.registry.address / f"physics/tool:{tag}" / "manifest.json"

        async def is_shown() -> bool:
            return shown.exists() and shown.read_bytes() == wanted

        try:
            await wait_until(is_shown, timeout=_PATIENCE, what=f"{tag} is visible")
        except TimeoutError as error:
            said = f"{await self.image(tag)}\n{self.converter.daemon.tail()}"
            raise AssertionError(f"{error}; it is {said}") from None
        return Digest(json.loads(wanted)["layers"][-1]["digest"].removeprefix("sha256:"))

    async def thin(self, tag: str, *, but: bytes | None = None) -> bytes:
        """Wait until a thin image has been pushed, another one than there was; return its manifest."""

        async def is_there() -> bool:
            return await self.manifest("thin/physics/tool", tag) not in (None, but)

        await wait_until(is_there, timeout=_PATIENCE, what=f"the thin image of {tag} is pushed")
        found = await self.manifest("thin/physics/tool", tag)
        assert found is not None
        return found

    async def pull(self, tag: str) -> str:
        """Pull a thin image on the node; return its ID."""
        name = f"{self.registry.address}/thin/physics/tool:{tag}"
        await self.node.engine.docker("pull", "--quiet", name, timeout=_PATIENCE)
        return (await self.node.engine.docker("image", "inspect", "--format={{.Id}}", name)).text


@dataclass(kw_only=True)
class Version:
    """What runs of a version of a tag, and where its upper layer is."""

    layer: Digest
    thin: bytes
    image: str
    container: Container

    @property
    def payload(self) -> str:
        """What the container finds in its file."""
        return (self.container.root / "payload").read_text()

    @property
    def open_payload(self) -> str:
        """What it finds in the file that it has open."""
        return Path(f"/proc/{self.container.pid}/fd/3").read_text()


async def _start(engine: Engine, image: str) -> Container:
    options = ("--detach", "--network=none", "--stop-signal=SIGKILL")
    identity = (await engine.docker("run", *options, image, "sh", "-c", _OPEN)).text
    pid = int((await engine.docker("inspect", "--format={{.State.Pid}}", identity)).text)

    async def has_it_open() -> bool:
        return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"

    await wait_until(has_it_open, timeout=_PATIENCE, what=f"the container of {image} has its file open")
    return Container(id=identity, pid=pid)


async def _run(site: Site, tag: str, *, former: Version | None = None) -> Version:
    """Wait until a tag is published and its thin image pushed, and run that."""
    layer = await site.published(tag)
    thin = await site.thin(tag, but=None if former is None else former.thin)
    image = await site.pull(tag)
    return Version(layer=layer, thin=thin, image=image, container=await _start(site.node.engine, image))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    directory = tmp_path_factory.mktemp("converter")
    base = directory / "base.tar"
    await asyncio.to_thread(write_base, base)
    registry = Registry(directory / "registry")
    stratum0 = Stratum0(
        directory=directory / "stratum0",
        repository=REPOSITORY,
        kind=RepositoryKind.NATIVE,
        publisher_settings={
            "REGISTRY_PLAIN_HTTP": registry.address,
            "PUBLISHER_COLLECT_AFTER": "0.1",
            "PUBLISHER_COLLECT_INTERVAL": "0",
        },
    )
    converter = Converter(directory=directory / "converter", stratum0=stratum0, registry=registry)
    node = Node(
        name="converted",
        directory=directory / "node",
        cvmfs_root=stratum0.cvmfs_root,
        driver_env={**stratum0.node_settings, "GRAPHDRIVER_PUBLISH_WAIT": str(_PATIENCE)},
    )
    async with AsyncExitStack() as stack:
        for close in (stratum0.close, registry.close, converter.close, node.close):
            stack.push_async_callback(close)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with asyncio.TaskGroup() as group:
            for start in (stratum0.start(), registry.start()):
                group.create_task(start)
        stratum0.cvmfs_root.mkdir()
        storage = stack.enter_context(stratum0.open_storage(directory / "client"))
        reader = RepositoryReader(storage, name=REPOSITORY, master_keys=[stratum0.keys.public.read_bytes()])
        await stack.enter_async_context(follow(reader, stratum0.tree))
        # No image of the list is there yet.
        await converter.start(_WISHES.format(repository=REPOSITORY, registry=registry.address))
        await node.start()
        yield Site(
            directory=directory,
            stratum0=stratum0,
            registry=registry,
            converter=converter,
            node=node,
            base=base,
            session=session,
        )


Versions = Mapping[str, Version]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def first(site: Site) -> Versions:
    """Both tags were pushed; containers run of their thin images."""
    for tag in _TAGS:
        await site.push(tag, "first")
    return {tag: await _run(site, tag) for tag in _TAGS}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def second(site: Site, first: Versions) -> Versions:
    """Both tags were moved."""
    for tag in _TAGS:
        await site.push(tag, "second")
    return {tag: await _run(site, tag, former=first[tag]) for tag in _TAGS}


async def test_what_is_pushed_becomes_visible_and_runs(site: Site, first: Versions) -> None:
    assert {tag: version.payload for tag, version in first.items()} == {tag: f"{tag} first" for tag in _TAGS}
    for tag, version in first.items():
        document = await site.image(tag)
        assert (document["state"], document["layers"][-1]["digest"]) == ("published", version.layer)


async def test_a_tag_that_is_moved_is_a_new_image_and_the_old_one_goes_on(first: Versions, second: Versions) -> None:
    assert {tag: version.payload for tag, version in second.items()} == {tag: f"{tag} second" for tag in _TAGS}
    assert {tag: version.payload for tag, version in first.items()} == {tag: f"{tag} first" for tag in _TAGS}


async def test_an_old_version_is_collected_when_its_days_are_over(
    site: Site, first: Versions, second: Versions
) -> None:
    homes = {tag: site.stratum0.home(version.layer) for tag, version in first.items()}
    assert [home.exists() for home in homes.values()] == [True, True]

    async def is_collected() -> bool:
        await site.collect()
        return not homes["moving"].exists()

    await wait_until(is_collected, timeout=_PATIENCE, what="the old version's layer is gone")
    # The other one has its thirty days: it runs again, from the image that the node has.
    await site.collect()
    again = await _start(site.node.engine, first["kept"].image)
    assert (again.root / "payload").read_text() == "kept first"
    # A container goes on, with what it has open.
    states = [
        (await site.node.engine.docker("inspect", "--format={{.State.Status}}", version.container.id)).text
        for version in (*first.values(), *second.values())
    ]
    assert states == ["running"] * 4
    assert first["moving"].open_payload == "moving first"
    assert {tag: version.payload for tag, version in second.items()} == {tag: f"{tag} second" for tag in _TAGS}
