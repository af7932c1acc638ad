"""The managed plugin as people get it: built by make, pushed to a registry, installed on nodes by docs/worker.md."""

import hashlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from harness.commands import run
from harness.engine import Engine
from harness.processes import wait_until
from harness.s3 import S3Access
from services.common.digest import Digest
from services.common.layout import sidecar_path
from services.common.repository_name import RepositoryName
from tests.support import cvmfs2
from tests.support.compose import ComposeStack

__all__ = ["CLIENT_SOURCE", "NAME", "ComposeSite", "Worker", "serve_client_package"]

NAME: Final = "cvmfs/graphdriver"
"""What the plugin is called, and so the storage driver."""

CLIENT_SOURCE: Final = "/var/lib/cvmfs/source"
"""Where the stand-in for the CVMFS client looks for repositories, inside the plugin."""

_PAGE: Final = Path(__file__).parents[2] / "docs" / "worker.md"
_PLACES: Final = {
    "cvmfs": "cvmfs",
    "cvmfs-config": "etc/cvmfs",
    "cvmfs-state": "var/lib/cvmfs",
    "secrets": "etc/cvmfs-graphdriver",
}
"""The plugin's mounts, and the machine's directories that they are of."""
_PLACE = re.compile(rf"(?<![\w/])/(?={'|'.join(sorted(_PLACES.values(), key=len, reverse=True))})")


def _installation() -> str:
    """Return the commands of the documentation."""
    text = _PAGE.read_text()
    (section,) = re.findall(r"^### Install the plugin$(.*?)^### ", text, re.MULTILINE | re.DOTALL)
    (commands,) = re.findall(r"^```sh$(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(commands)


@dataclass(frozen=True, kw_only=True)
class ComposeSite:
    """The compose stack, as nodes have it.

    Parameters
    ----------
    stack
        The stack, which runs.
    cvmfs_root
        Directory in which a client shows the repository.
    """

    stack: ComposeStack
    cvmfs_root: Path

    @property
    def repository(self) -> RepositoryName:
        """Name of the repository."""
        return self.stack.repository

    @property
    def access(self) -> S3Access:
        """The bucket, for the user that nodes have."""
        return self.stack.access("uploader")

    async def visible(self, digest: Digest) -> None:
        """Wait until the client shows a layer."""
        await self.stack.published(digest)
        sidecar = self.cvmfs_root / self.repository / sidecar_path(digest)

        async def shows() -> bool:
            return sidecar.exists()

        await wait_until(shows, what=f"the client shows layer {digest}")


class Worker:
    """A worker node that gets the plugin.

    Parameters
    ----------
    engine
        Its engine, which has been started with overlay2.
    root
        Existing directory that stands for the root of its file system, so that the sandbox's real one stays as it is.
    """

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine = engine
        self.root = root
        self.cvmfs = root / "cvmfs"
        """Its `/cvmfs`."""

    def sources(self) -> list[str]:
        """Write the settings that lead the plugin to the node's directories."""
        return [f"{mount}.source={self.root / place}" for mount, place in _PLACES.items()]

    async def install(self, *, registry: str, repository: RepositoryName, store: S3Access) -> None:
        """Do what docs/worker.md says, word for word but for names, addresses and the place of the root directory."""
        files = self.root / "keys"
        files.mkdir()
        (files / "access-key").write_text(f"{store.access_key}\n")
        (files / "secret-key").write_text(f"{store.secret_key}\n")
        commands = _PLACE.sub(f"{self.root}/", _installation())
        for example, real in {
            "registry.example.org": registry,
            "images.example.org": repository,
            "https://s3.example.org": store.endpoint,
        }.items():
            assert example in commands
            commands = commands.replace(example, real)
        enable = f"docker plugin enable {NAME}"
        assert commands.endswith(f"{enable}\n")
        commands = commands.replace(enable, f"docker plugin set {NAME} {' '.join(self.sources())}\n{enable}")
        script = files / "install.sh"
        script.write_text(f"set -eu\ncd {files}\n{commands}")
        await run("sh", str(script), env=self.engine.docker_env, timeout=300)
        shutil.rmtree(files)

    async def use(self, driver: str) -> None:
        """Restart the engine with another storage driver."""
        await self.engine.stop()
        self.engine.storage_driver = driver
        await self.engine.start()

    async def kill_plugin(self, name: str = NAME) -> None:
        """End the plugin with SIGKILL, and wait until the engine has started it again and it answers."""
        before = await self.engine.plugin_process(name)
        os.kill(before, signal.SIGKILL)

        async def runs_again() -> bool:
            try:
                return await self.engine.plugin_process(name) != before
            except FileNotFoundError:
                return False

        await wait_until(runs_again, what=f"the engine starts {name} again")
        # A dockerd that ends before it has connected makes the next one panic.
        await self.engine.docker("info")


async def _client_package(directory: Path) -> Path:
    """Make a Debian package of the stand-in for the CVMFS client."""
    tree = directory / "tree"
    for part in ("DEBIAN", "usr/bin", "usr/lib/cvmfs-stand-in"):
        (tree / part).mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: cvmfs\nVersion: 1\nArchitecture: all\nMaintainer: tests <tests@example.org>\n"
        "Depends: bindfs, python3\nDescription: stand-in for the CVMFS client\n"
    )
    module = Path(cvmfs2.__file__)
    shutil.copy(module, tree / "usr/lib/cvmfs-stand-in")
    program = tree / "usr/bin/cvmfs2"
    program.write_text(
        f'#!/bin/sh\nexec python3 /usr/lib/cvmfs-stand-in/{module.name} --source {CLIENT_SOURCE} -- "$@"\n'
    )
    program.chmod(0o755)
    await run("dpkg-deb", "--build", "--root-owner-group", str(tree), str(directory / "cvmfs.deb"))
    return directory / "cvmfs.deb"


@asynccontextmanager
async def serve_client_package(directory: Path, address: str) -> AsyncIterator[str]:
    """Serve a repository of packages that has the stand-in for the CVMFS client.

    Parameters
    ----------
    directory
        What does not exist yet, and gets the package.
    address
        Where to listen.

    Yields
    ------
    str
        Its line of sources.list(5).
    """
    package = await _client_package(directory)
    content = package.read_bytes()
    control = (directory / "tree" / "DEBIAN" / "control").read_text()
    digest = hashlib.sha256(content).hexdigest()
    index = f"{control}Filename: packages/{package.name}\nSize: {len(content)}\nSHA256: {digest}\n"

    async def answer(request: web.Request) -> web.Response:
        match request.match_info["name"]:
            case "Packages":
                return web.Response(text=index)
            case name if name == package.name:
                return web.Response(body=content)
        raise web.HTTPNotFound

    app = web.Application()
    app.router.add_get("/packages/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, 0)
        await site.start()
        port = runner.addresses[0][1]
        yield f"deb [trusted=yes] http://{address}:{port} packages/"
    finally:
        await runner.cleanup()
