"""A single-node Ceph with an S3 gateway (RGW), from Debian's packages `ceph-mon ceph-osd radosgw ceph-common`.

One monitor, one storage daemon that keeps everything in memory, one gateway; no manager, and no authentication between
them. It is up in a second and gone without a trace.
"""

import asyncio
import json
import sysconfig
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness.commands import CommandError, run
from harness.ports import free_ports
from harness.processes import Daemon, DaemonError, wait_until
from harness.s3 import S3Access, accepts_objects, create_bucket, s3_client

__all__ = ["CephRGW"]

_BUCKET: Final = "layers"
_PACKAGES: Final = "ceph-mon ceph-osd radosgw ceph-common"
_COMMAND_TIMEOUT: Final = 300
_NOBODY: Final = "http://127.0.0.1:9"
_MEMORY: Final = 6 << 30
"""Capacity of the storage daemon, in bytes; memory is taken only as objects come."""

_CONFIGURATION: Final = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor_port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = false
# Without authentication there is no secure mode, which the gateway would ask the monitor for.
ms mon client mode = crc
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
# However full the machine's disk is: otherwise the monitor ends when less than a twentieth is free.
mon data avail crit = 0
# Every start-up step is a round of Paxos, which collects proposals for a second by default.
paxos propose interval = 0.02
paxos min wait = 0.01
osd objectstore = memstore
memstore device bytes = {memory}
# Debian's default is a relative path.
osd class dir = {classes}
osd data = {directory}/osd
mon data = {directory}/mon
rgw data = {directory}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway_port}
run dir = {directory}
admin socket = {directory}/$name.asok
keyring = {directory}/keyring
log file = {directory}/$name.log
"""


class CephRGW:
    """One cluster with the bucket `layers` and one user, on the loopback interface.

    Stopping it loses its objects, since they are in memory.

    Parameters
    ----------
    directory
        Where it keeps its configuration and logs; it is the caller's to remove.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._monitor_port, gateway_port = free_ports(2)
        self._gateway_port = gateway_port
        self._running: list[Daemon] = []
        self.access = S3Access(endpoint=f"http://127.0.0.1:{gateway_port}", bucket=_BUCKET, access_key="")

    @property
    def endpoint(self) -> str:
        """URL of the gateway."""
        return self.access.endpoint

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.access.bucket

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings of a service that uses the bucket."""
        return self.access.environment

    async def start(self) -> None:
        """Start the cluster and wait until it takes objects.

        Raises
        ------
        DaemonError
            It is not installed, or one of its daemons did not get ready.
        """
        try:
            await self._start_storage()
            await self._start_gateway()
            self.access = await self.create_user("layers")
            async with s3_client(self.access) as client:

                async def bucket_made() -> bool:
                    return await create_bucket(client, _BUCKET) and await accepts_objects(client, _BUCKET)

                await wait_until(bucket_made, what="the gateway takes objects")
            await self.persistent_topic(_NOBODY)
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """End the daemons orderly, those that need others first."""
        while self._running:
            await self._running[-1].stop()
            self._running.pop()

    async def kill(self) -> None:
        """End the daemons at once."""
        while self._running:
            await self._running[-1].kill()
            self._running.pop()

    async def create_user(self, name: str) -> S3Access:
        """Make a user, who has no rights in the bucket unless it is the owner's."""
        output = await self._run("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}")
        keys = json.loads(output)["keys"][0]
        return replace(self.access, access_key=keys["access_key"], secret_key=keys["secret_key"])

    async def plain_topic(self, push_endpoint: str) -> str:
        """Make the topic whose events are posted once, while the uploader waits, and return its ARN.

        Parameters
        ----------
        push_endpoint
            URL that events are posted to; a token, if the receiver asks for one, is part of it.
        """
        return await self._topic("plain", push_endpoint, persistent="false")

    async def persistent_topic(self, push_endpoint: str) -> str:
        """Make the topic whose events are queued and posted until the receiver takes them, and return its ARN.

        A gateway looks for new queues every 30 seconds only, so this one exists from the start and is redirected here.
        The first event that is ever queued is posted half a minute after the start at the latest, any other at once.
        Once announcements to it have been taken away, the gateway serves its queue no more, also under a new
        announcement: a test that needs the topic after another one starts a server of its own.

        Parameters
        ----------
        push_endpoint
            URL that events are posted to; a token, if the receiver asks for one, is part of it.
        """
        return await self._topic("persistent", push_endpoint, persistent="true")

    async def announce_uploads(self, topics: Sequence[str]) -> None:
        """Have new layers announced to these topics, given by ARN, and to no others."""
        configurations: list[dict[str, Any]] = [
            {
                "Id": f"layers-{number}",
                "TopicArn": topic,
                "Events": ["s3:ObjectCreated:*"],
                "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "sha256/"}]}},
            }
            for number, topic in enumerate(topics)
        ]
        async with s3_client(self.access) as client:
            # A configuration is added to those that are there; only an empty one clears them.
            for wanted in ([], configurations):
                await client.put_bucket_notification_configuration(
                    Bucket=_BUCKET, NotificationConfiguration={"TopicConfigurations": wanted}
                )

    async def _topic(self, name: str, push_endpoint: str, *, persistent: str) -> str:
        attributes = {"push-endpoint": push_endpoint, "persistent": persistent}
        async with s3_client(self.access, "sns") as client:
            answer = await client.create_topic(Name=name, Attributes=attributes)
        return str(answer["TopicArn"])

    async def _start_storage(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        for name in ("mon", "osd", "rgw"):
            (self._directory / name).mkdir()
        fsid = str(uuid.uuid4())
        self._configure(fsid)
        monitors = str(self._directory / "monmap")
        address = f"[v2:127.0.0.1:{self._monitor_port}]"
        await self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monitors)
        await self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        await self._start_daemon("ceph-mon", "-i", "a", listens=self._monitor_port)
        osd = str(uuid.uuid4())
        await self._run("ceph", "osd", "new", osd)
        await self._run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        await self._start_daemon("ceph-osd", "-i", "0")

    async def _start_gateway(self) -> None:
        await self._start_daemon("radosgw", "--name", "client.rgw", listens=self._gateway_port)

    def _configure(self, fsid: str) -> None:
        (self._directory / "keyring").touch()
        (self._directory / "ceph.conf").write_text(
            _CONFIGURATION.format(
                fsid=fsid,
                monitor_port=self._monitor_port,
                gateway_port=self._gateway_port,
                memory=_MEMORY,
                classes=f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}/rados-classes",
                directory=self._directory,
            )
        )

    async def _start_daemon(self, program: str, *arguments: str, listens: int | None = None) -> None:
        """Start a daemon and wait until it listens on a port, if one is given."""
        daemon = Daemon(
            program,
            [program, "-f", *arguments, "-c", str(self._directory / "ceph.conf")],
            log=self._directory / f"{program}.out",
        )

        async def started() -> bool:
            return daemon.running if listens is None else await _answers(listens)

        self._running.append(daemon)
        await daemon.start(started)

    async def _run(self, program: str, *arguments: str) -> bytes:
        """Run a command of the cluster to its end and return its standard output."""
        try:
            configuration = self._directory / "ceph.conf"
            return (await run(program, "-c", configuration, *arguments, timeout=_COMMAND_TIMEOUT)).stdout
        except FileNotFoundError:
            raise DaemonError(
                f"{program} is not installed: apt install ceph-mon ceph-osd radosgw ceph-common"
            ) from None
        except CommandError as error:
            raise DaemonError(str(error)) from None


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
