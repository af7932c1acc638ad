"""The managed plugin: built and pushed by make, installed as docs/worker.md says, and everything that can happen to it.

The tests share three engines and go on where the one before stopped: making a plugin and restarting engines is what
takes the time.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.commands import CommandError, run
from harness.containers import run_container
from harness.engine import Engine
from harness.processes import DaemonError
from harness.registry import Registry
from harness.thin_images import read_descriptor
from tests.support import cvmfs2
from tests.support.automounter import automounted
from tests.support.compose import TRIAL_REPOSITORY, ComposeStack
from tests.support.containers import Trio
from tests.support.cvmfs_client import follow
from tests.support.e2e import BASE, THIN, Images
from tests.support.managed_plugin import CLIENT_SOURCE, NAME, ComposeSite, Worker, serve_client_package

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ROOT = Path(__file__).parents[2]
_BRIDGE = "172.30.0.1"
_BUILT = _ROOT / ".cache" / "plugin"
"""Where make leaves what it made."""
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""What this machine trusts: it may be behind a proxy that re-signs TLS."""
_LIMIT = 150_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(compose_stack: ComposeStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ComposeSite]:
    """The compose stack, and a client that shows its repository to all nodes."""
    site = ComposeSite(stack=compose_stack, cvmfs_root=tmp_path_factory.mktemp("cvmfs"))
    async with follow(compose_stack.reader(), site.cvmfs_root / site.repository):
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site_images(site: ComposeSite, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The base image, whose thin form is in the stack's repository."""
    return await Images.make(site, tmp_path_factory.mktemp("site-images"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    registry = Registry(tmp_path_factory.mktemp("registry") / "registry")
    try:
        await registry.start()
        yield registry
    finally:
        await registry.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plugin(builder: Engine, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The plugin, with the stand-in for the CVMFS client in it, on the builder's engine and in the registry."""
    await builder.docker("import", _ROOT / ".cache" / "debian-trixie-slim.tar", "debian:trixie-slim")
    async with serve_client_package(tmp_path_factory.mktemp("packages") / "packages", _BRIDGE) as source:
        options = f"--secret id=ca_bundle,src={_CERTIFICATES} --build-arg 'CVMFS_SOURCE={source}'"
        make = ("make", "-C", _ROOT, f"BUILD_OPTIONS={options}")
        await run(*make, "plugin", "plugin-push", f"REGISTRY={registry.address}", env=builder.docker_env, timeout=900)
    return f"{registry.address}/{NAME}"


async def _worker(name: str, directory: Path, *arguments: str) -> Worker:
    engine = Engine(name=name, directory=directory / "engine", arguments=arguments)
    await engine.start()
    (directory / "root").mkdir()
    return Worker(engine, directory / "root")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def worker(
    plugin: str, site: ComposeSite, site_images: Images, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Worker]:
    """A node without autofs, whose repository is mounted after the plugin has been enabled."""
    assert plugin.startswith(registry.address)
    worker = await _worker("worker", tmp_path_factory.mktemp("worker"))
    point = worker.cvmfs / TRIAL_REPOSITORY
    try:
        await worker.install(registry=registry.address, repository=TRIAL_REPOSITORY, store=site.access)
        point.mkdir()
        await run("mount", "--bind", site.cvmfs_root / TRIAL_REPOSITORY, point)
        await worker.use(NAME)
        await site_images.load(worker.engine)
        await site_images.load_thin(worker.engine)
        yield worker
    finally:
        await worker.engine.close()
        await run("umount", "--recursive", "--lazy", worker.cvmfs)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def live_worker(
    plugin: str, site: ComposeSite, site_images: Images, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Worker]:
    """A node whose repositories autofs mounts when they are looked up, and whose containers outlive dockerd."""
    assert plugin.startswith(registry.address)
    worker = await _worker("live", tmp_path_factory.mktemp("live"), "--live-restore")
    worker.cvmfs.mkdir()
    with automounted(worker.cvmfs, site.cvmfs_root):
        try:
            await worker.install(registry=registry.address, repository=TRIAL_REPOSITORY, store=site.access)
            await worker.use(NAME)
            await site_images.load(worker.engine)
            await site_images.load_thin(worker.engine)
            yield worker
        finally:
            await worker.engine.close()


async def _inspect(engine: Engine, name: str = NAME) -> dict[str, Any]:
    [document] = json.loads((await engine.docker("plugin", "inspect", name)).stdout)
    return dict(document)


async def _run(engine: Engine, image: str, script: str) -> str:
    return (await engine.docker("run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", script)).text


# What make builds


async def test_it_is_small(plugin: str) -> None:  # noqa: ARG001 - what was built
    files = [path for path in _BUILT.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 1000
    assert sum(path.stat().st_size for path in files) < _LIMIT


async def test_the_pushed_one_does_not_stay(plugin: str, builder: Engine) -> None:
    assert plugin not in (await builder.docker("plugin", "ls", "--format={{.Name}}")).text
    assert f"{NAME}:latest false" in (await builder.docker("plugin", "ls", "--format={{.Name}} {{.Enabled}}")).text


@pytest.mark.usefixtures("plugin")
async def test_a_directory_that_is_missing_is_named(builder: Engine, tmp_path: Path) -> None:
    worker = Worker(builder, tmp_path)
    await builder.docker("plugin", "set", NAME, *worker.sources())
    with pytest.raises(CommandError, match=re.escape(f'error mounting "{tmp_path}/cvmfs"')):
        await builder.docker("plugin", "enable", NAME)


@pytest.mark.usefixtures("plugin")
async def test_a_setting_that_is_missing_is_named_in_the_engines_log(builder: Engine, tmp_path: Path) -> None:
    worker = Worker(builder, tmp_path)
    for source in worker.sources():
        Path(source.partition("=")[2]).mkdir(parents=True)
    await builder.docker("plugin", "set", NAME, *worker.sources())
    before = builder.dockerd.log.stat().st_size
    with pytest.raises(CommandError, match="dial unix"):
        await builder.docker("plugin", "enable", NAME)
    with builder.dockerd.log.open() as log:
        log.seek(before)
        errors = [line for line in log if "level=error" in line and "plugin=" in line]
    assert errors
    assert "GRAPHDRIVER_REPOSITORIES is not set" in errors[0]
    assert "cannot read /run/secrets/access-key" in errors[0]
    assert (await _inspect(builder))["Enabled"] is False


# On a worker node


async def test_regular_and_thin_images_run(worker: Worker) -> None:
    info = json.loads((await worker.engine.docker("info", "--format=json")).stdout)
    assert info["Driver"] == NAME
    assert dict(info["DriverStatus"])["Repositories"] == TRIAL_REPOSITORY
    for image in (BASE, THIN):
        assert await _run(worker.engine, image, "ls /etc/debian_version") == "/etc/debian_version"


async def test_a_committed_image_runs_on_another_node(
    worker: Worker, live_worker: Worker, site: ComposeSite, tmp_path: Path
) -> None:
    container = await run_container(worker.engine, THIN)
    await worker.engine.docker("exec", container.id, "sh", "-c", "echo committed >/new; rm -r /etc/debian_version")
    await worker.engine.docker("commit", container.id, "test:committed")
    script = "cat /new; test ! -e /etc/debian_version && echo gone"
    assert await _run(worker.engine, "test:committed", script) == "committed\ngone"
    *_, committed = (await read_descriptor(worker.engine, "test:committed", tmp_path)).layers
    await site.visible(committed.id)
    await worker.engine.docker("save", "test:committed", output=tmp_path / "committed.tar")
    await live_worker.engine.docker("load", input=tmp_path / "committed.tar")
    assert await _run(live_worker.engine, "test:committed", script) == "committed\ngone"
    await worker.engine.docker("rm", "--force", container.id)


async def test_secrets_show_nowhere(worker: Worker, site: ComposeSite) -> None:
    secret = site.access.secret_key
    assert secret
    assert secret not in json.dumps(await _inspect(worker.engine))
    assert secret not in worker.engine.dockerd.log.read_text()
    process = Path(f"/proc/{await worker.engine.plugin_process(NAME)}")
    assert b"tini" in (process / "cmdline").read_bytes()
    for file in ("cmdline", "environ"):
        assert secret.encode() not in (process / file).read_bytes()


async def test_the_engines_log_tells_information_from_errors(worker: Worker) -> None:
    lines = [line for line in worker.engine.dockerd.log.read_text().splitlines() if " plugin=" in line]
    assert any("level=info" in line and "waiting_for_the_engine" in line for line in lines)
    assert [line for line in lines if "level=error" in line] == []


async def _trios(engine: Engine) -> list[Trio]:
    return list(await asyncio.gather(*(Trio.make(engine, image) for image in (BASE, THIN))))


async def _use(trios: list[Trio], directory: Path) -> None:
    await asyncio.gather(*(trio.use(directory / str(number)) for number, trio in enumerate(trios)))


async def test_containers_outlive_the_plugin_and_end_with_the_engine(worker: Worker, tmp_path: Path) -> None:
    trios = await _trios(worker.engine)
    await worker.kill_plugin()
    for trio in trios:
        await trio.has_survived()
    await worker.engine.stop()
    await worker.engine.start()
    for trio in trios:
        await trio.start_again()
    await _use(trios, tmp_path)


async def test_containers_outlive_engine_and_plugin_with_live_restore(live_worker: Worker, tmp_path: Path) -> None:
    trios = await _trios(live_worker.engine)
    await live_worker.engine.stop()
    await live_worker.engine.start()
    await live_worker.kill_plugin()
    await live_worker.engine.stop()
    await live_worker.engine.start()
    for trio in trios:
        await trio.has_survived()
    await _use(trios, tmp_path)


async def test_an_upgrade_keeps_images_and_containers(
    worker: Worker, builder: Engine, plugin: str, site: ComposeSite
) -> None:
    container = await run_container(worker.engine, THIN)
    await worker.engine.docker("exec", container.id, "sh", "-c", "echo kept >/kept")
    await worker.engine.docker("stop", container.id)
    config = json.loads((_BUILT / "config.json").read_text())
    (_BUILT / "config.json").write_text(json.dumps({**config, "description": "the next one"}))
    (_BUILT / "rootfs/etc/plugin-name").write_text("the next one")
    await builder.docker("plugin", "create", plugin, _BUILT)
    await builder.docker("plugin", "push", plugin)
    await worker.use("overlay2")
    await worker.engine.docker("plugin", "disable", NAME)
    with pytest.raises(DaemonError, match=f"plugin {NAME} found but disabled"):
        await worker.use(NAME)
    await worker.use("overlay2")
    upgrade = ("plugin", "upgrade", "--grant-all-permissions", "--skip-remote-check", NAME, f"{plugin}:latest")
    await worker.engine.docker(*upgrade)
    # What the engine forgets, as docs/worker.md says.
    mounts = {mount["Name"]: mount["Source"] for mount in (await _inspect(worker.engine))["Config"]["Mounts"]}
    assert mounts["cvmfs"] == "/cvmfs"
    await worker.engine.docker("plugin", "set", NAME, *worker.sources())
    await worker.engine.docker("plugin", "enable", NAME)
    await worker.use(NAME)
    document = await _inspect(worker.engine)
    assert document["Config"]["Description"] == "the next one"
    assert f"LAYER_STORE_ENDPOINT={site.access.endpoint}" in document["Settings"]["Env"]
    await worker.engine.docker("start", container.id)
    assert (await worker.engine.docker("exec", container.id, "cat", "/kept")).text == "kept"
    await worker.engine.docker("rm", "--force", container.id)


async def test_a_second_plugin_mounts_repositories_itself(
    worker: Worker, plugin: str, site_images: Images, site: ComposeSite
) -> None:
    """Beside the first, of another name, with the client that was built into it."""
    other, engine = "cvmfs/other", worker.engine
    source = worker.root / "var/lib/cvmfs" / Path(CLIENT_SOURCE).name
    source.mkdir()
    await run("mount", "--bind", site.cvmfs_root, source)
    settings = {
        **site.access.environment,
        "GRAPHDRIVER_REPOSITORIES": TRIAL_REPOSITORY,
        "GRAPHDRIVER_REPOSITORY_MOUNTS": "driver",
    }
    settings = {name: value for name, value in settings.items() if not name.endswith("_KEY")}
    await engine.docker("plugin", "install", "--grant-all-permissions", "--disable", "--alias", other, plugin)
    await engine.docker(
        *("plugin", "set", other, *worker.sources()), *(f"{name}={value}" for name, value in settings.items())
    )
    await engine.docker("plugin", "enable", other)
    assert await _run(engine, THIN, "ls /etc/debian_version") == "/etc/debian_version"
    await worker.use(other)
    assert (await engine.docker("images", "--quiet")).text == ""
    await site_images.load_thin(engine)
    container = await run_container(engine, THIN)
    # Its FUSE process ends with the plugin, so the container has to be restarted.
    await worker.kill_plugin(other)
    assert await _run(engine, THIN, "ls /etc/debian_version") == "/etc/debian_version"
    await engine.docker("restart", container.id)
    assert (await engine.docker("exec", container.id, "ls", "/etc/debian_version")).text == "/etc/debian_version"
    assert len(cvmfs2.calls(source)) >= 2
    await engine.docker("rm", "--force", container.id)
    await engine.stop()
    await run("umount", "--lazy", source)
