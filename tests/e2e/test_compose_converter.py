"""Profiles `registry` and `converter` of the compose stack, by the page's own commands: what is pushed gets visible.

The registry's image cannot be had here, so that Debian's package of the same program has its name; all else is as the
page has it.
"""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from harness.commands import run
from harness.engine import Engine
from harness.ports import free_ports
from harness.processes import wait_until
from services.common.layout import layer_tree, sidecar_path
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.revision import Revision
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.writer.history import TRUNK_PREVIOUS
from tests.support.compose import CHECKOUT, TRIAL_REPOSITORY, ComposeStack
from tests.support.cvmfs_client import ClientView
from tests.support.documentation import commands_below
from tests.support.metrics import shown
from tests.support.podman import Podman, seen_by_clients
from tests.support.tars import archive, member

pytestmark = pytest.mark.asyncio(loop_scope="session")

_PATIENCE: Final = 300
_PAGE: Final = CHECKOUT / "docs" / "stratum0.md"
_HEADING: Final = "## Images that keep themselves up to date"
_REGISTRY: Final = "127.0.0.1:5000"
"""Where the profile's registry listens unless told otherwise."""
_IMAGE: Final = "registry:5000/physics/tool:v1"
"""What the page has pushed, as converter and publisher call it."""
_TAKEN: Final = 'converter_hint_events_total{endpoint="registry",outcome="taken"}'
_SERVER: Final = """\
FROM cvmfs-thin/seaweedfs AS tools
FROM debian:trixie-slim
COPY docker-registry /bin/registry
COPY --from=tools /bin/busybox /bin/wget
ENTRYPOINT ["registry"]
"""
_PULLED: Final = """\
docker() {
    if [ "$1" = pull ]; then set -- image inspect "${@:2}"; fi
    command docker "$@"
}
"""
"""There is nowhere to pull from, so that what the page pulls has to be there."""
_APPTAINER: Final = """\
apptainer() {
    local root
    [ "$1" = exec ]
    root=$(realpath "$2")
    shift 2
    setpriv --reuid=1000 --regid=1000 --clear-groups \\
        bwrap --unshare-all --clearenv --ro-bind "$root" / --dev /dev --proc /proc --tmpfs /tmp /.exec "$@"
}
"""
"""Apptainer cannot be had here: runs a command as it does, in a namespace of a user's own, by the image's scripts."""
_MANIFESTS: Final = {
    "Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
}


async def _have_registry_image(stack: ComposeStack, engine: Engine, directory: Path) -> None:
    """Build what stands for the image that the profile `registry` pulls."""
    configuration = json.loads((await stack.compose("--profile", "registry", "config", "--format", "json")).stdout)
    name = configuration["services"]["registry"]["image"]
    program = shutil.which("docker-registry")
    assert program is not None
    shutil.copy(program, directory)
    (directory / "Dockerfile").write_text(_SERVER)
    await engine.docker("build", "--quiet", "--tag", name, directory)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def converter(
    compose_stack: ComposeStack, builder: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The page's commands were run; `HOST:PORT` of the converter."""
    await _have_registry_image(compose_stack, builder, tmp_path_factory.mktemp("registry"))
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    commands = commands_below(_PAGE, _HEADING)
    try:
        await compose_stack.shell(f"export LISTEN_CONVERTER={address}\n{_PULLED}{commands}")
        yield address
    finally:
        await compose_stack.compose("rm", "--stop", "--force", "converter", "registry")


async def _manifest(session: aiohttp.ClientSession, repository: str) -> bytes | None:
    """Return the manifest that tag v1 of a repository has in the registry."""
    url = f"http://{_REGISTRY}/v2/{repository}/manifests/v1"
    async with session.get(url, headers=_MANIFESTS) as response:
        return await response.read() if response.ok else None


async def _becomes_visible(stack: ComposeStack, session: aiohttp.ClientSession) -> bytes:
    """Wait until clients see the image as the registry has it; return its manifest."""
    manifest = await _manifest(session, "physics/tool")
    assert manifest is not None

    async def is_served() -> bool:
        with stack.reader() as reader:
            revision = reader.newest(reader.head())
            entry = revision.stat(f"/.metadata/{_IMAGE}/manifest.json".encode())
            return entry is not None and b"".join(revision.content(entry)) == manifest

    await wait_until(is_served, timeout=_PATIENCE, what="the image is served as it was pushed")
    return manifest


async def _thin_image(session: aiohttp.ClientSession, *, but: bytes | None = None) -> bytes:
    """Wait until a thin image has been pushed, another one than there was; return its manifest."""

    async def is_there() -> bool:
        return await _manifest(session, "thin/physics/tool") not in (None, but)

    await wait_until(is_there, timeout=_PATIENCE, what="the thin image is pushed")
    found = await _manifest(session, "thin/physics/tool")
    assert found is not None
    return found


def _file(revision: Revision, path: str) -> bytes | None:
    entry = revision.stat(f"/{path}".encode())
    return None if entry is None else b"".join(revision.content(entry))


def _forms(revision: Revision, manifest: bytes) -> dict[str, bool]:
    """Say in which forms a revision has the image."""
    name = revision.stat(f"/{_IMAGE}".encode())
    config = json.loads(manifest)["config"]["digest"].removeprefix("sha256:")
    stored = json.loads(_file(revision, "podmanStore/overlay-images/images.json") or b"[]")
    layers = [layer["digest"].removeprefix("sha256:") for layer in json.loads(manifest)["layers"]]
    return {
        "image": _file(revision, f".metadata/{_IMAGE}/manifest.json") == manifest,
        "layers": all(
            revision.stat(f"/{path(digest)}".encode()) for digest in layers for path in (layer_tree, sidecar_path)
        ),
        "flat": name is not None and name.target == f"../../.flat/{config[:2]}/{config}".encode(),
        "podman": [row["names"] for row in stored if row["id"] == config] == [[_IMAGE]],
    }


@pytest.mark.usefixtures("converter")
async def test_what_the_readme_has_pushed_is_there_in_all_forms_in_one_revision_and_runs(
    compose_stack: ComposeStack, tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as session:
        manifest = await _becomes_visible(compose_stack, session)
    view = tmp_path / "repository"
    with compose_stack.reader() as reader:
        head = reader.head()
        assert set(_forms(reader.newest(head), manifest).values()) == {True}
        assert set(_forms(reader.tagged(head, TRUNK_PREVIOUS), manifest).values()) == {False}
    # What is served has been read; all of it is read faster where it lies.
    storage = DirectoryStorage(compose_stack.volume("repository") / TRIAL_REPOSITORY)
    with RepositoryReader(storage, name=TRIAL_REPOSITORY, master_keys=[compose_stack.public_key]) as reader:
        await asyncio.to_thread(ClientView(reader, view).update)
    (commands,) = re.findall(r"neither asks a registry:\n\n```sh\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    with seen_by_clients(view, TRIAL_REPOSITORY) as seen:
        podman = Podman(tmp_path / "user", [seen / "podmanStore"])
        script = f"set -euo pipefail\n{_APPTAINER}{commands}"
        said = await run("bash", "-c", script, env=podman.environment)
        version = (seen / _IMAGE / "etc/debian_version").read_text()
    assert said.text == f"{version}{version}".strip()


async def test_what_the_readme_has_pushed_gets_visible_and_again_when_its_tag_moves(
    compose_stack: ComposeStack, builder: Engine, converter: str, tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as session:
        first = await _becomes_visible(compose_stack, session)
        (listing,) = re.findall(r"`(docker compose exec) (publisher thinctl images [^`]+)`", _PAGE.read_text())
        listed = await compose_stack.shell(" -T ".join(listing))
        assert _IMAGE in listed.text
        thin = await _thin_image(session)

        (tmp_path / "other.tar").write_bytes(archive(member(b"file", b"another image")))
        await builder.docker("import", tmp_path / "other.tar", "localhost:5000/physics/tool:v1")
        await builder.docker("push", "--quiet", "localhost:5000/physics/tool:v1")
        assert await _becomes_visible(compose_stack, session) != first
        await _thin_image(session, but=thin)

        async def were_told() -> bool:
            return (await shown(converter)).get(_TAKEN, 0) >= 2

        await wait_until(were_told, timeout=_PATIENCE, what="the registry has told the converter of each push")
        # And so can a site's jobs.
        token = {"Authorization": f"Bearer {compose_stack.secret('sync_token')}"}
        async with session.post(f"http://{converter}/v1/sync", json={"image": _IMAGE}, headers=token) as response:
            answer: dict[str, Any] = await response.json()
        assert (response.status, answer["unmatched"]) == (202, 0), answer
    containers = await compose_stack.inspect("converter", "registry")
    assert [container["State"]["Health"]["Status"] for container in containers] == ["healthy"] * 2
