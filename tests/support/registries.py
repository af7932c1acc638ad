"""Real registries (Debian's docker-registry) in every form of access that registries have."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from harness.ports import free_ports
from harness.processes import Daemon
from services.registry.credentials import DockerCredentials
from services.registry.options import RegistryOptions

__all__ = ["PASSWORD", "USER", "Authority", "RegistryServer", "impatient", "patient", "run_program"]

USER: Final = "somebody"
PASSWORD: Final = "s3cret:word"  # noqa: S105 - of a test
_HTPASSWD: Final = f"{USER}:$2b$05$abcdefghijklmnopqrstuu2JDQLR7mbHhdpill4/jMLDoVbsBhlUi\n"
"""The password's bcrypt hash, the only kind that the registry reads."""


def impatient(**changes: Any) -> RegistryOptions:  # noqa: ANN401 - the fields of the options
    """Options for plain HTTP that give up after few attempts and know no user; time-outs are for who sets them."""
    options = RegistryOptions(
        insecure=True,
        credentials=DockerCredentials(path=Path("/nonexistent/config.json")),
        connect_timeout=60.0,
        read_timeout=60.0,
        attempts=3,
        longest_wait=5.0,
    )
    return replace(options, **changes)


def patient(**changes: Any) -> RegistryOptions:  # noqa: ANN401 - the fields of the options
    """The same for tests in which pauses are waited for, too."""
    return replace(impatient(longest_wait=60.0), **changes)


async def run_program(*argv: str, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return what it wrote; one that fails fails the test."""
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"{argv}: {output.decode()}"
    return output.decode()


@dataclass(frozen=True, slots=True)
class Authority:
    """A private certificate authority."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """The authority's own certificate."""
        return self.directory / "ca.pem"

    @classmethod
    async def make(cls, directory: Path, *extensions: str) -> "Authority":
        """Make a new one; extensions of its certificate are in place of those that it needs."""
        directory.mkdir()
        self = cls(directory)
        # Python wants the key's usage from 3.13 on.
        needed = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
        await self._request("ca", "/CN=test authority", *(extensions or needed))
        return self

    async def issue(self, name: str) -> tuple[Path, Path]:
        """Return certificate and key of a server on the loopback interface."""
        await self._request(
            name,
            f"/CN={name}",
            "basicConstraints=critical,CA:FALSE",
            "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost",
            issuer=("-CA", str(self.certificate), "-CAkey", str(self.directory / "ca.key")),
        )
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    async def _request(self, name: str, subject: str, *extensions: str, issuer: tuple[str, ...] = ()) -> None:
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        files = ("-keyout", str(self.directory / f"{name}.key"), "-out", str(self.directory / f"{name}.pem"))
        added = [argument for extension in extensions for argument in ("-addext", extension)]
        await run_program("openssl", "req", "-x509", *kind, *issuer, *files, "-days", "2", "-subj", subject, *added)


@dataclass(slots=True, kw_only=True)
class RegistryServer:
    """A registry that runs."""

    address: str
    """Host and port."""
    directory: Path
    """Its data and its log."""

    @classmethod
    @asynccontextmanager
    async def run(
        cls,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        certificate: tuple[Path, Path] | None = None,
        htpasswd: bool = False,
        token: Mapping[str, str] | None = None,
        notifications: Sequence[Mapping[str, Any]] = (),
    ) -> "AsyncIterator[RegistryServer]":
        """Run a registry.

        Parameters
        ----------
        directory
            Where its files go.
        host
            Address on the loopback interface.
        certificate
            Certificate and key; plain HTTP without.
        htpasswd
            Whether `USER` and `PASSWORD` are wanted.
        token
            Settings of the registry's token authentication.
        notifications
            Endpoints that are notified, as the registry's configuration has them.
        """
        directory.mkdir(parents=True)
        (port,) = free_ports(1)
        http: dict[str, Any] = {"addr": f"{host}:{port}"}
        if certificate is not None:
            http["tls"] = {"certificate": str(certificate[0]), "key": str(certificate[1])}
        settings: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
            "http": http,
        }
        if htpasswd:
            (directory / "htpasswd").write_text(_HTPASSWD)
            settings["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
        if token is not None:
            settings["auth"] = {"token": dict(token)}
        if notifications:
            settings["notifications"] = {"endpoints": list(notifications)}
        (directory / "config.yml").write_text(json.dumps(settings))
        daemon = Daemon(
            "registry", ["docker-registry", "serve", str(directory / "config.yml")], log=directory / "registry.log"
        )

        async def answers() -> bool:
            try:
                _, writer = await asyncio.open_connection(host.strip("[]"), port)
            except ConnectionRefusedError:
                return False
            writer.close()
            await writer.wait_closed()
            return True

        await daemon.start(answers)
        try:
            yield cls(address=f"{host}:{port}", directory=directory)
        finally:
            await daemon.stop()

    async def push(self, source: str, name: str, *options: str) -> None:
        """Copy an image here with skopeo (`oci:DIRECTORY:TAG` and the like)."""
        destination = f"docker://{self.address}/{name}"
        await run_program(
            "skopeo", "copy", "--quiet", "--all", "--dest-tls-verify=false", *options, source, destination
        )

    def store_sparse(self, repository: str, size: int) -> str:
        """Put a blob of zeros into the storage, which takes no space there; return its digest (blocking)."""
        hasher = hashlib.sha256()
        for _ in range(size >> 20):
            hasher.update(bytes(1 << 20))
        digest = hasher.hexdigest()
        storage = self.directory / "data/docker/registry/v2"
        data = storage / "blobs/sha256" / digest[:2] / digest / "data"
        link = storage / "repositories" / repository / "_layers/sha256" / digest / "link"
        for path in (data, link):
            path.parent.mkdir(parents=True)
        data.touch()
        os.truncate(data, size)
        link.write_text(f"sha256:{digest}")
        return digest
