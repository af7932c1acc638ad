"""containerd's side of the snapshotter's protocol: keys, labels and mounts as it sends them."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Self

from grpclib.client import Channel
from grpclib.events import SendRequest, listen

from services.snapshotter.proto.diff_grpc import DiffStub
from services.snapshotter.proto.diff_pb2 import ApplyRequest, DiffRequest
from services.snapshotter.proto.snapshots_grpc import SnapshotsStub
from services.snapshotter.proto.snapshots_pb2 import (
    CleanupRequest,
    CommitSnapshotRequest,
    Info,
    ListSnapshotsRequest,
    MountsRequest,
    PrepareSnapshotRequest,
    RemoveSnapshotRequest,
    StatSnapshotRequest,
    UpdateSnapshotRequest,
    UsageRequest,
    UsageResponse,
    ViewSnapshotRequest,
)
from services.snapshotter.proto.types_pb2 import Descriptor, Mount

__all__ = ["ContainerdClient", "lowers", "mounted", "option"]

_NAME = "cvmfs"


class ContainerdClient:
    """Calls the snapshotter over its socket."""

    def __init__(self, channel: Channel) -> None:
        self._snapshots = SnapshotsStub(channel)
        self._differ = DiffStub(channel)

    @classmethod
    @asynccontextmanager
    async def connected(cls, socket: Path, *, namespace: str | None = None) -> AsyncIterator[Self]:
        """Connect; containerd sends a namespace with every call, Debian's does not."""
        channel = Channel(path=str(socket))
        if namespace is not None:

            async def add(request: SendRequest) -> None:
                request.metadata["containerd-namespace"] = namespace

            listen(channel, SendRequest, add)
        try:
            yield cls(channel)
        finally:
            channel.close()

    async def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Mount:
        request = PrepareSnapshotRequest(snapshotter=_NAME, key=key, parent=parent, labels=labels)
        (mount,) = (await self._snapshots.Prepare(request)).mounts
        return mount

    async def view(self, key: str, parent: str = "") -> Mount:
        (mount,) = (await self._snapshots.View(ViewSnapshotRequest(snapshotter=_NAME, key=key, parent=parent))).mounts
        return mount

    async def mounts(self, key: str) -> Mount:
        (mount,) = (await self._snapshots.Mounts(MountsRequest(snapshotter=_NAME, key=key))).mounts
        return mount

    async def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        await self._snapshots.Commit(CommitSnapshotRequest(snapshotter=_NAME, name=name, key=key, labels=labels))

    async def remove(self, key: str) -> None:
        await self._snapshots.Remove(RemoveSnapshotRequest(snapshotter=_NAME, key=key))

    async def stat(self, key: str) -> Info:
        return (await self._snapshots.Stat(StatSnapshotRequest(snapshotter=_NAME, key=key))).info

    async def update(self, name: str, labels: Mapping[str, str], *paths: str) -> Info:
        # containerd sends the times as those of the year 1.
        info = Info(name=name, labels=labels)
        info.created_at.seconds = info.updated_at.seconds = -62135596800
        request = UpdateSnapshotRequest(snapshotter=_NAME, info=info)
        request.update_mask.paths.extend(paths)
        return (await self._snapshots.Update(request)).info

    async def list(self, *filters: str) -> list[Info]:
        responses = await self._snapshots.List(ListSnapshotsRequest(snapshotter=_NAME, filters=filters))
        return [info for response in responses for info in response.info]

    async def usage(self, key: str) -> UsageResponse:
        return await self._snapshots.Usage(UsageRequest(snapshotter=_NAME, key=key))

    async def cleanup(self) -> None:
        await self._snapshots.Cleanup(CleanupRequest(snapshotter=_NAME))

    async def layer(self, name: str, parent: str, files: Mapping[str, str | bytes]) -> None:
        """Unpack a layer as containerd does: straight into the directory that would be mounted for writing."""
        key = f"moby/1/extract-611-AbC- sha256:{name}"
        tree = _upper(await self.prepare(key, parent))
        for path, content in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content.encode() if isinstance(content, str) else content)
        await self.commit(name, key)

    async def container(self, identity: str, image: str) -> Mount:
        """Make a container as dockerd does, its init layer first."""
        init = await self.prepare(f"moby/2/{identity}-init-key", image)
        with mounted(init) as root:
            (root / ".dockerenv").touch()
        await self.commit(f"moby/3/{identity}-init", f"moby/2/{identity}-init-key")
        return await self.prepare(f"moby/4/{identity}", f"moby/3/{identity}-init")

    async def apply(self, mount: Mount) -> Descriptor:
        return (await self._differ.Apply(ApplyRequest(mounts=[mount]))).applied

    async def diff(
        self,
        left: Sequence[Mount],
        right: Sequence[Mount],
        *,
        media_type: str = "",
        labels: Mapping[str, str] | None = None,
        namespace: str | None = None,
    ) -> Descriptor:
        request = DiffRequest(left=left, right=right, media_type=media_type, labels=labels)
        metadata = {} if namespace is None else {"containerd-namespace": namespace}
        return (await self._differ.Diff(request, metadata=metadata)).diff


def option(mount: Mount, name: str) -> str:
    """Return the value of a mount's option."""
    (value,) = (text.removeprefix(f"{name}=") for text in mount.options if text.startswith(f"{name}="))
    return value


def lowers(mount: Mount) -> list[Path]:
    """Return the lower directories of an overlay, top first, under their real paths."""
    return [Path(path).resolve() for path in option(mount, "lowerdir").split(":")]


def _upper(mount: Mount) -> Path:
    return Path(mount.source if mount.type == "bind" else option(mount, "upperdir"))


@contextmanager
def mounted(mount: Mount) -> Iterator[Path]:
    """Mount as containerd does; long options from within the directory that the lower ones have in common."""
    point = Path("/run") / f"mounted-{os.urandom(8).hex()}"
    point.mkdir()
    directory, options = "/", ",".join(mount.options)
    if mount.type == "overlay":
        paths = option(mount, "lowerdir").split(":")
        directory = os.path.commonpath([os.path.dirname(path) for path in paths])
        options = options.replace(f"{directory}/", "")
    read_only = mount.type == "bind" and "ro" in mount.options
    arguments = ["--bind", mount.source] if mount.type == "bind" else ["-t", "overlay", "-o", options, mount.source]
    try:
        # mount(2), as containerd; the newer call takes no options of this length.
        env = {**os.environ, "LIBMOUNT_FORCE_MOUNT2": "always"}
        subprocess.run(["mount", *arguments, point], cwd=directory, env=env, check=True)
        if read_only:
            subprocess.run(["mount", "-o", "remount,bind,ro", point], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True)
    finally:
        point.rmdir()
