"""The stack of docker-compose.yml, on a real engine, built and started as docs/stratum0.md says."""

import asyncio
import json
import os
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from harness.commands import CommandError
from harness.processes import wait_until
from services.common.archive.model import LayerArchive
from services.publisher.journal.migrations.former import STEPS
from services.publisher.journal.version import VERSION
from services.repository.native.records import ObjectKind
from tests.support.compose import CHECKOUT, ComposeStack
from tests.support.cvmfs_client import ClientView
from tests.support.documentation import commands_below
from tests.support.notifications import minio_event
from tests.support.processes import command_lines
from tests.support.publisher import make_layer

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGES = {"suite": 240_000_000, "repository": 200_000_000, "seaweedfs": 200_000_000}
"""Images and the most bytes that they may have."""
OPERATIONS = CHECKOUT / "docs" / "operations.md"
LASTING = ("publisher", "repository", "seaweedfs")
SECRETS = {
    "seaweedfs": {"seaweedfs_users", "seaweedfs_event_token"},
    "setup": {f"{user}_{kind}_key" for user in ("store_admin", "uploader", "agent") for kind in ("access", "secret")},
    "publisher": {
        *("event_token", "publisher_projects", "converter_token", "docker_config"),
        *("agent_access_key", "agent_secret_key"),
    },
    "converter": {
        *("converter_token", "converter_endpoints", "registry_webhook_token", "sync_token"),
        "docker_config",
    },
    "docker2cvmfs": {"uploader_access_key", "uploader_secret_key"},
    "registry": {"registry_configuration"},
    "grafana": {"grafana_password"},
}
"""What each service reads, and so may see."""
OWNERS = {"seaweedfs": 10003, "registry": 0, "grafana": 472}
HEALTHY = {
    "secrets": "exited 0",
    "seaweedfs": "healthy",
    "setup": "exited 0",
    "repository-create": "exited 0",
    "publisher": "healthy",
    "repository": "healthy",
}


def _shown(stack: ComposeStack, directory: Path) -> int:
    """Bring a directory up to date as a client of the repository server does, and return the revision."""
    with stack.reader() as reader:
        view = ClientView(reader, directory)
        view.update()
        return view.revision


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[LayerArchive]:
    directory = tmp_path_factory.mktemp("layers")
    return [make_layer(directory, f"layer{number}", {"etc/motd": f"layer {number}"}) for number in range(6)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def published(compose_stack: ComposeStack, layers: list[LayerArchive]) -> dict[str, Any]:
    """A layer that a worker node has uploaded and the publisher has published."""
    await compose_stack.upload(layers[0])
    return await compose_stack.published(layers[0].digest)


async def test_every_service_of_a_fresh_clone_gets_healthy(compose_stack: ComposeStack) -> None:
    assert await compose_stack.states() == HEALTHY
    assert {"secrets", ".env"}.isdisjoint(path.name for path in compose_stack.directory.iterdir())


async def test_each_service_has_its_own_secrets_and_no_others(compose_stack: ComposeStack) -> None:
    names = {service: set(secrets) for service, secrets in compose_stack.secrets.items()}
    assert names == SECRETS
    files = {service: list(compose_stack.volume(f"secrets-{service}").iterdir()) for service in SECRETS}
    assert {path.stat().st_mode & 0o7777 for paths in files.values() for path in paths} == {0o400}
    assert {service: {path.stat().st_uid for path in paths} for service, paths in files.items()} == {
        service: {OWNERS.get(service, 10001)} for service in SECRETS
    }
    for container in await compose_stack.inspect():
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        volumes = {mount["Name"]: mount["RW"] for mount in container["Mounts"] if "_secrets" in mount.get("Name", "")}
        if service != "secrets":
            own = {f"cvmfs-thin_secrets-{service}": False}
            assert volumes == (own if service in SECRETS else {}), service


async def test_worker_nodes_get_the_uploaders_keys_as_documented(compose_stack: ComposeStack) -> None:
    await compose_stack.shell(commands_below(CHECKOUT / "docs" / "stratum0.md", "Worker nodes need its public key"))
    for name, secret in (("access-key", "uploader_access_key"), ("secret-key", "uploader_secret_key")):
        file = compose_stack.directory / name
        assert (file.read_text(), file.stat().st_mode & 0o7777) == (compose_stack.secret(secret), 0o400)


async def test_another_repository_is_not_begun_beside_one(compose_stack: ComposeStack) -> None:
    script = "PUBLISHER_REPOSITORY=other.example.org docker compose run --rm repository-create"
    with pytest.raises(CommandError, match=f"there is the repository {compose_stack.repository} already"):
        await compose_stack.shell(script)
    assert [path.name for path in compose_stack.volume("repository").iterdir()] == [compose_stack.repository]


async def test_an_uploaded_layer_is_served(
    compose_stack: ComposeStack, published: dict[str, Any], tmp_path: Path
) -> None:
    revision = await asyncio.to_thread(_shown, compose_stack, tmp_path / "cvmfs")
    assert revision >= published["revision"]
    assert (tmp_path / "cvmfs" / published["digest"] / "etc" / "motd").read_text() == "layer 0"


@pytest_asyncio.fixture(loop_scope="session")
async def web(compose_stack: ComposeStack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"{compose_stack.repository_url}/") as session:
        yield session


@pytest.mark.parametrize("name", [".cvmfspublished", ".cvmfswhitelist", ".cvmfs_master_replica"])
async def test_what_changes_is_kept_by_caches_for_a_minute(web: aiohttp.ClientSession, name: str) -> None:
    async with web.get(name) as response:
        assert (response.status, response.content_type) == (200, "application/x-cvmfs")
        assert response.headers["Cache-Control"] == "public, max-age=61"
        assert response.headers.keys() & {"ETag", "Last-Modified", "Content-Encoding", "Expires"} == set()


async def test_objects_are_kept_by_caches_for_good(
    compose_stack: ComposeStack, published: dict[str, Any], web: aiohttp.ClientSession
) -> None:
    assert published["state"] == "published"
    with compose_stack.reader() as reader:
        path = reader.head().manifest.root.path(ObjectKind.CATALOG)
    async with web.get(path, headers={"Accept-Encoding": "gzip"}) as response:
        assert (response.status, response.content_type) == (200, "application/octet-stream")
        assert response.headers["Cache-Control"] == "public, max-age=259200, immutable"
        assert response.headers.keys() & {"ETag", "Last-Modified", "Content-Encoding"} == set()
        whole = await response.read()
    async with web.get(path, headers={"Range": "bytes=2-5"}) as response:
        assert (response.status, await response.read()) == (206, whole[2:6])
    async with web.head(path) as response:
        assert (response.status, response.content_length) == (200, len(whole))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"data/00/{'0' * 38}", 404),
        ("GET", "data/txn/", 404),
        ("GET", "data/", 404),
        ("GET", "", 404),
        ("GET", ".cvmfs_nothing", 404),
        ("GET", ".cvmfspublished/../../../../etc/passwd", 404),
        ("GET", "data/00/..%2f..%2f..%2f..%2fetc%2fpasswd", 404),
        ("PUT", ".cvmfspublished", 405),
        ("DELETE", ".cvmfspublished", 405),
    ],
)
async def test_nothing_else_is_served(web: aiohttp.ClientSession, method: str, path: str, status: int) -> None:
    async with web.request(method, path) as response:
        assert response.status == status
        # What is not there yet must not be remembered as missing.
        assert status != 404 or response.headers["Cache-Control"] == "no-store"


async def test_images_are_small_labelled_and_not_of_root(compose_stack: ComposeStack) -> None:
    for name, most in IMAGES.items():
        answer = await compose_stack.engine.docker("image", "inspect", f"cvmfs-thin/{name}:latest")
        (image,) = json.loads(answer.stdout)
        assert image["Size"] < most, name
        labels = image["Config"]["Labels"]
        prefix = "org.opencontainers.image."
        said = ("title", "description", "licenses", "version", "revision")
        assert {f"{prefix}{name}" for name in said} <= labels.keys()
        assert int(image["Config"]["User"].partition(":")[0]) >= 10000


async def test_containers_have_no_privileges(compose_stack: ComposeStack) -> None:
    for container in await compose_stack.inspect(*LASTING):
        status = Path(f"/proc/{container['State']['Pid']}/status").read_text()
        fields = dict(re.findall(r"^(\w+):\t(.*)$", status, re.MULTILINE))
        assert (int(fields["CapEff"], 16), int(fields["CapBnd"], 16), fields["NoNewPrivs"]) == (0, 0, "1")
        assert 0 not in map(int, fields["Uid"].split())
        root = Path(f"/proc/{container['State']['Pid']}/mountinfo").read_text().splitlines()[0].split()
        assert (root[4], root[5].split(",")[0]) == ("/", "ro")


async def test_secrets_are_in_no_description_log_or_argument(
    compose_stack: ComposeStack, published: dict[str, Any]
) -> None:
    assert published
    # A wrong token is what a careless log would show.
    wrong = {"Authorization": f"Bearer {compose_stack.secret('event_token')}x"}
    url = f"{compose_stack.publisher_url}/v1/events"
    async with aiohttp.ClientSession() as session, session.post(url, headers=wrong, data=b"{}") as response:
        assert response.status == 401
    names = {name for secrets in compose_stack.secrets.values() for name in secrets}
    secrets = {name: compose_stack.secret(name) for name in names if re.search("(_key|_token|_password)$", name)}
    assert len(secrets) >= 8
    docker = compose_stack.engine.docker
    images = [await docker("history", "--no-trunc", f"cvmfs-thin/{name}:latest") for name in IMAGES]
    texts = {
        "description": json.dumps(await compose_stack.inspect()),
        "log": (await compose_stack.compose("logs", "--no-color")).text,
        "images": "".join(image.text for image in images),
        "arguments": b"".join(command_lines().values()).decode(errors="replace"),
    }
    assert "published" in texts["log"]
    assert "services.publisher" in texts["arguments"]
    assert [(name, place) for name, value in secrets.items() for place, text in texts.items() if value in text] == []


async def test_files_take_the_place_of_generated_secrets_as_documented_and_nothing_is_lost(
    compose_stack: ComposeStack, published: dict[str, Any], layers: list[LayerArchive], tmp_path: Path
) -> None:
    """Every container is removed and made anew for that."""
    before, layer = compose_stack.secrets, await compose_stack.layer(published["digest"])
    containers = {container["Id"] for container in await compose_stack.inspect()}
    await compose_stack.have_secrets_in_files()
    assert await compose_stack.states() == HEALTHY
    assert containers.isdisjoint({container["Id"] for container in await compose_stack.inspect()})
    assert compose_stack.secrets == before
    said = (await compose_stack.compose("logs", "--no-color", "secrets")).text
    assert "services have those of secrets/" in said
    assert await compose_stack.layer(published["digest"]) == layer
    await asyncio.to_thread(_shown, compose_stack, tmp_path / "cvmfs")
    assert (tmp_path / "cvmfs" / published["digest"] / "etc" / "motd").read_text() == "layer 0"
    await compose_stack.upload(layers[3])
    await compose_stack.published(layers[3].digest)
    # Never mixed: one that is missing is not generated, and whoever waits for this service does not start.
    token = compose_stack.directory / "secrets" / "event_token"
    content = token.read_bytes()
    token.unlink()
    refused = await compose_stack.compose("run", "--rm", "-T", "secrets", accept=(1,))
    assert "secrets/event_token is missing or empty" in refused.text + refused.complaint
    assert compose_stack.secrets == before
    token.write_bytes(content)


async def test_notifications_of_minio_are_taken(compose_stack: ComposeStack, layers: list[LayerArchive]) -> None:
    body = minio_event("layers", f"sha256/{layers[1].digest}", size=layers[1].size)
    token = {"Authorization": f"Bearer {compose_stack.secret('event_token')}"}
    url = f"{compose_stack.publisher_url}/v1/events"
    async with aiohttp.ClientSession() as session:
        async with session.post(url, data=body) as response:
            assert response.status == 401
        async with session.head(url, headers=token) as response:
            assert response.status == 204
        async with session.post(url, data=body, headers=token) as response:
            assert response.status == 204
    assert (await compose_stack.layer(layers[1].digest))["state"] != "published"
    await compose_stack.upload(layers[1])
    await compose_stack.published(layers[1].digest)


async def test_a_publisher_that_starts_before_its_store_waits(
    compose_stack: ComposeStack, layers: list[LayerArchive]
) -> None:
    await compose_stack.compose("kill", "seaweedfs")
    await compose_stack.compose("rm", "--stop", "--force", "seaweedfs", "publisher")
    await compose_stack.compose("up", "--detach", "--no-deps", "publisher")

    async def listens() -> bool:
        try:
            status, answer = await compose_stack.ready()
        except aiohttp.ClientError:
            return False
        return status == 503 and answer["checks"]["store"] != "ok"

    await wait_until(listens, what="the publisher says that it has no store")
    (container,) = await compose_stack.inspect("publisher")
    assert (container["State"]["Status"], container["RestartCount"]) == ("running", 0)
    await compose_stack.compose("up", "--detach", "--no-deps", "seaweedfs")

    async def is_ready() -> bool:
        return (await compose_stack.ready())[0] == 200

    await wait_until(is_ready, what="the publisher finds its store")
    (same,) = await compose_stack.inspect("publisher")
    assert (same["Id"], same["RestartCount"]) == (container["Id"], 0)
    await compose_stack.upload(layers[2])
    await compose_stack.published(layers[2].digest)
    await compose_stack.up()


async def test_restarted_containers_get_healthy(compose_stack: ComposeStack) -> None:
    # The same containers, as after a restart of the machine; their temporary file systems are made anew.
    before = {container["Id"] for container in await compose_stack.inspect(*LASTING)}
    await compose_stack.compose("restart", "--timeout", "1", *LASTING)
    await compose_stack.up()
    assert await compose_stack.states() == HEALTHY
    assert {container["Id"] for container in await compose_stack.inspect(*LASTING)} == before


def _make_old(journal: Path) -> None:
    """Make of a journal one as the first publisher wrote it."""
    old = journal.with_name("old.sqlite")
    columns = "digest, state, attempts, share, reason, retryable, due, revision, announced_at, updated_at"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(STEPS[0])
        connection.execute("ATTACH ? AS present", (str(journal),))
        connection.execute(f"INSERT INTO layers ({columns}) SELECT {columns} FROM present.layers")  # noqa: S608
        connection.commit()
    owner = journal.stat()
    for leftover in journal.parent.glob("journal.sqlite-*"):
        leftover.unlink()
    old.chmod(owner.st_mode & 0o777)
    os.chown(old, owner.st_uid, owner.st_gid)
    old.rename(journal)


async def test_an_upgrade_keeps_the_journal(compose_stack: ComposeStack, published: dict[str, Any]) -> None:
    before = await compose_stack.layer(published["digest"])
    journal = compose_stack.volume("publisher-state") / "journal.sqlite"
    await compose_stack.compose("stop", "publisher")
    await asyncio.to_thread(_make_old, journal)
    (old,) = await compose_stack.inspect("publisher")
    # The new version differs in its code, so that the image and the container are new ones.
    with (compose_stack.directory / "services" / "__init__.py").open("a") as file:
        file.write("# another version\n")
    upgrade = commands_below(OPERATIONS, "**Upgrade.**")
    assert upgrade.startswith("git pull\n")
    await compose_stack.shell(upgrade.removeprefix("git pull\n"), timeout=600)
    (new,) = await compose_stack.inspect("publisher")
    assert new["Image"] != old["Image"]
    after = await compose_stack.layer(published["digest"])
    assert {key: after[key] for key in ("state", "revision", "announced_at", "updated_at")} == {
        key: before[key] for key in ("state", "revision", "announced_at", "updated_at")
    }
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


async def test_a_back_up_is_restored_as_documented(
    compose_stack: ComposeStack, published: dict[str, Any], layers: list[LayerArchive], tmp_path: Path
) -> None:
    before = await compose_stack.layer(published["digest"])
    (line,) = commands_below(CHECKOUT / "docs" / "stratum0.md", "They trust it by its public key:").splitlines()
    await compose_stack.shell(line)
    key = (compose_stack.directory / "repository.pub").read_bytes()
    await compose_stack.shell(commands_below(OPERATIONS, "**Back up.**"))
    await compose_stack.compose("down", "--volumes", "--timeout", "1")
    await compose_stack.shell(commands_below(OPERATIONS, "**Restore**"))
    await compose_stack.compose("exec", "publisher", "thinctl", "resume")
    assert compose_stack.public_key == key
    assert await compose_stack.layer(published["digest"]) == before
    await asyncio.to_thread(_shown, compose_stack, tmp_path / "cvmfs")
    assert (tmp_path / "cvmfs" / published["digest"] / "etc" / "motd").read_text() == "layer 0"
    await compose_stack.upload(layers[4])
    await compose_stack.published(layers[4].digest)
