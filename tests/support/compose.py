"""The stack of docker-compose.yml on a private engine, as somebody runs it who has just cloned the project."""

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from harness.commands import Completed, run
from harness.engine import Engine
from harness.ports import free_ports
from harness.processes import wait_until
from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.source import HttpSource
from tests.support.documentation import commands_below

__all__ = ["CHECKOUT", "TRIAL_REPOSITORY", "ComposeStack", "copy_checkout"]

CHECKOUT: Final = Path(__file__).parents[2]
"""The project as it is being tested."""

TRIAL_REPOSITORY: Final = RepositoryName("images.example.org")
"""Name of the repository where none has been chosen."""
_SLIM_ROOTFS: Final = CHECKOUT / ".cache" / "debian-trixie-slim.tar"
_BASE: Final = "debian:trixie-slim"
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
"""What this machine trusts: it may be behind a proxy that re-signs TLS."""


def copy_checkout(destination: Path) -> None:
    """Copy what a clone has."""
    made_here = (".git", ".venv", ".cache", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "secrets", ".env")
    shutil.copytree(CHECKOUT, destination, ignore=shutil.ignore_patterns(*made_here), symlinks=True)


class ComposeStack:
    """One stack, in a clone of its own.

    Parameters
    ----------
    engine
        Engine with a bridge.
    directory
        Directory that is made for the clone.
    repository
        Name of the repository; None for the one that there is to try out with.
    variants
        Override files, by the middle of their names.
    settings
        What is different on this machine: variables of `.env.example`.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        directory: Path,
        repository: RepositoryName | None = None,
        variants: Sequence[str] = ("seaweedfs",),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.engine = engine
        self.directory = directory
        self.repository = repository or TRIAL_REPOSITORY
        store, publisher, served = free_ports(3)
        self.publisher_url = f"http://127.0.0.1:{publisher}"
        """Where the publisher listens."""
        self.repository_url = f"http://127.0.0.1:{served}/cvmfs/{self.repository}"
        """Where CVMFS clients find the repository."""
        self.store_url = f"http://127.0.0.1:{store}"
        """Where the object store listens."""
        files = ["docker-compose.yml", *(f"docker-compose.{variant}.yml" for variant in variants)]
        self._settings = {
            **({"PUBLISHER_REPOSITORY": repository} if repository else {}),
            "COMPOSE_FILE": ":".join(files),
            "CA_BUNDLE": str(_CERTIFICATES),
            "LISTEN_STORE": f"127.0.0.1:{store}",
            "LISTEN_PUBLISHER": f"127.0.0.1:{publisher}",
            "LISTEN_REPOSITORY": f"127.0.0.1:{served}",
            **(settings or {}),
        }

    def volume(self, name: str) -> Path:
        """Where a volume's files are on this machine."""
        project = self._settings.get("COMPOSE_PROJECT_NAME", "cvmfs-thin")
        return self.engine.data_root / "volumes" / f"{project}_{name}" / "_data"

    @property
    def public_key(self) -> bytes:
        """What clients trust the repository by."""
        return (self.volume("repository-keys") / f"{self.repository}.pub").read_bytes()

    def reader(self) -> RepositoryReader:
        """Read the repository as CVMFS clients do, by HTTP; a context manager."""
        return RepositoryReader(HttpSource(self.repository_url), name=self.repository, master_keys=[self.public_key])

    @property
    def secrets(self) -> dict[str, dict[str, str]]:
        """The secrets that each service has, by its name and theirs."""
        volumes = self.volume("secrets-*").parent
        return {
            volume.name.partition("_secrets-")[2]: {
                path.name: path.read_text() for path in (volume / "_data").iterdir()
            }
            for volume in volumes.parent.glob(volumes.name)
        }

    async def have_secrets_in_files(self) -> None:
        """Go over from generated secrets to files, as the documentation says, if that has not been done."""
        if not (self.directory / "secrets").exists():
            await self.shell(commands_below(CHECKOUT / "docs" / "operations.md", "From generated secrets to files"))

    def secret(self, name: str) -> str:
        """Read a secret as the services have it that read it."""
        (text,) = {secrets[name] for secrets in self.secrets.values() if name in secrets}
        return text.strip()

    def access(self, user: str = "uploader") -> S3Access:
        """The bucket as one of its users has it: `uploader`, `agent` or `store_admin`."""
        return S3Access(
            endpoint=self.store_url,
            bucket="layers",
            access_key=self.secret(f"{user}_access_key"),
            secret_key=self.secret(f"{user}_secret_key"),
        )

    @property
    def _environment(self) -> dict[str, str]:
        # What a shell has set comes before what is in .env, which so can be the one of the documentation.
        return self.engine.docker_env | self._settings

    async def clone(self) -> None:
        """Make the clone, and give the engine the image that all are built from."""
        await asyncio.to_thread(copy_checkout, self.directory)
        await self.engine.docker("import", _SLIM_ROOTFS, _BASE)

    async def compose(
        self,
        *arguments: str,
        timeout: float = 300,  # noqa: ASYNC109 - a time-out is the point
        accept: Sequence[int] = (0,),
    ) -> Completed:
        """Run docker compose in the clone; parameters and errors as of `harness.commands.run`."""
        command = ("docker", "compose", "--project-directory", str(self.directory), *arguments)
        return await run(*command, env=self._environment, timeout=timeout, accept=accept)

    async def shell(self, script: str, *, timeout: float = 300) -> Completed:  # noqa: ASYNC109 - as above
        """Run commands of the documentation in the clone, as somebody types them."""
        command = ["bash", "-euo", "pipefail", "-c", f'cd "$0"\n{script}', str(self.directory)]
        return await run(*command, env=self._environment, timeout=timeout)

    async def up(self, *services: str) -> None:
        """Start services, or all, and wait until they are healthy."""
        await self.compose("up", "--detach", "--wait", "--wait-timeout", "280", "--quiet-pull", *services)

    async def down(self) -> None:
        """Stop and remove the containers; the volumes stay."""
        await self.compose("down", "--timeout", "30")

    async def states(self) -> dict[str, str]:
        """Say of each service whether its container is healthy, or how it ended."""
        lines = (await self.compose("ps", "--all", "--format=json")).text.splitlines()
        containers = [json.loads(line) for line in lines]
        return {
            container["Service"]: container["Health"] or f"{container['State']} {container['ExitCode']}"
            for container in containers
        }

    async def inspect(self, *services: str) -> list[dict[str, Any]]:
        """Describe the containers of services, or of all, as the engine does."""
        containers = (await self.compose("ps", "--all", "--quiet", *services)).text.split()
        document: list[dict[str, Any]] = json.loads((await self.engine.docker("inspect", *containers)).stdout)
        return document

    async def upload(self, archive: LayerArchive) -> None:
        """Upload a layer as a worker node does."""
        async with ObjectStore(settings=self.access().settings) as store:
            await store.upload(archive, repository=self.repository)

    async def layer(self, digest: Digest) -> dict[str, Any]:
        """Return what the publisher says about a layer."""
        return json.loads(await self._get(f"{self.publisher_url}/v1/layers/{digest}"))  # type: ignore[no-any-return]

    async def published(self, digest: Digest, *, timeout: float = 300) -> dict[str, Any]:  # noqa: ASYNC109 - as above
        """Wait until the publisher says that a layer is published, and return what it says."""

        async def is_published() -> bool:
            return (await self.layer(digest)).get("state") == "published"

        await wait_until(is_published, timeout=timeout, what=f"layer {digest} is published")
        return await self.layer(digest)

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """Return status and content of the publisher's `/readyz`."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.publisher_url}/readyz") as response:
            return response.status, await response.json()

    async def _get(self, url: str) -> bytes:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.read()
