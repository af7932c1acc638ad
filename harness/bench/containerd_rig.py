"""A node with the snapshotter beside one with containerd's own, and the base image on them in both forms."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.bench.material import make_variants
from harness.bench.subjects import BASE_IMAGE, THIN_IMAGE, Subject, regular_subjects, thin_subject
from harness.containerd_node import ContainerdNode
from harness.engine import Engine
from harness.images import write_image
from harness.stratum0 import Stratum0
from harness.thin_images import publish_layer, write_thin_image
from services.common.descriptor import ThinDescriptor
from services.common.repository_name import RepositoryName

__all__ = ["ContainerdRig", "open_containerd_rig"]


@dataclass(frozen=True, kw_only=True)
class ContainerdRig:
    """What the rows of containerd work with."""

    directory: Path
    """Theirs."""
    stratum0: Stratum0
    node: ContainerdNode
    plain: Engine
    """The same Docker on the same containerd, with the overlayfs snapshotter."""
    rootfs: Path
    """The base image's layer."""

    @property
    def regular(self) -> tuple[Subject, Subject]:
        """The base image as a regular one, under both snapshotters."""
        return regular_subjects(self.plain, self.node.engine, name="overlayfs")

    @property
    def thin(self) -> Subject:
        """The base image as a thin one."""
        return thin_subject(self.node.engine, self.stratum0, self.node.directory)

    async def variants(self, name: str, count: int) -> list[Path]:
        """Write archives of images that are the base image but for one file, `NAME:0` and so on."""
        return await asyncio.to_thread(make_variants, name, self.rootfs, self.directory, count)


@asynccontextmanager
async def open_containerd_rig(directory: Path, *, rootfs: Path) -> AsyncIterator[ContainerdRig]:
    """Start everything and put the base image everywhere; end everything at the end of the context."""
    directory.mkdir()
    async with AsyncExitStack() as stack:
        stratum0 = Stratum0(directory=directory / "stratum0", repository=RepositoryName("bench.example.org"))
        plain = Engine(name="overlayfs", directory=directory / "overlayfs", storage_driver="overlayfs", snapshotter="")
        node = ContainerdNode(
            name="snapshotter",
            directory=directory / "snapshotter",
            cvmfs_root=stratum0.cvmfs_root,
            snapshotter_env=stratum0.containerd_node_settings,
        )
        for part in (stratum0, plain, node):
            stack.push_async_callback(part.close)
            await part.start()
        base, thin = directory / "base.tar", directory / "thin.tar"
        await asyncio.to_thread(write_image, base, name=BASE_IMAGE, layers=[rootfs])
        published = await publish_layer(rootfs, stratum0, directory)
        write_thin_image(thin, name=THIN_IMAGE, descriptor=ThinDescriptor.of(published.thin))
        for engine, archive in ((plain, base), (node.engine, base), (node.engine, thin)):
            await engine.docker("load", input=archive)
        yield ContainerdRig(directory=directory, stratum0=stratum0, node=node, plain=plain, rootfs=rootfs)
