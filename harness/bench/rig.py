"""The daemons that are compared, and the base image on them in both forms."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.bench.material import Material, make_material
from harness.bench.subjects import BASE_IMAGE, THIN_IMAGE, Subject, regular_subjects, thin_subject
from harness.engine import Engine
from harness.node import Node
from harness.stratum0 import Stratum0
from harness.thin_images import publish_layer, write_thin_image
from services.common.descriptor import ThinDescriptor
from services.common.repository_name import RepositoryName

__all__ = ["Rig", "open_rig"]


@dataclass(frozen=True, kw_only=True)
class Rig:
    """What the rows work with."""

    stratum0: Stratum0
    node: Node
    plain: Engine
    """The same Docker with overlay2."""
    material: Material

    @property
    def regular(self) -> tuple[Subject, Subject]:
        """The base image as a regular one, under overlay2 and under the suite."""
        return regular_subjects(self.plain, self.node.engine, name="overlay2")

    @property
    def thin(self) -> Subject:
        """The base image as a thin one."""
        return thin_subject(self.node.engine, self.stratum0, self.node.directory)


@asynccontextmanager
async def open_rig(directory: Path, *, rootfs: Path, variants: int) -> AsyncIterator[Rig]:
    """Start everything and put the base image everywhere; end everything at the end of the context."""
    async with AsyncExitStack() as stack:
        stratum0 = Stratum0(directory=directory / "stratum0", repository=RepositoryName("bench.example.org"))
        plain = Engine(name="plain", directory=directory / "plain")
        node = Node(
            name="suite",
            directory=directory / "suite",
            cvmfs_root=stratum0.cvmfs_root,
            driver_env=stratum0.node_settings,
        )
        for part in (stratum0, plain, node):
            stack.push_async_callback(part.close)
            await part.start()
        material = await make_material(
            plain, rootfs=rootfs, base_image=BASE_IMAGE, directory=directory, variants=variants
        )
        await node.engine.docker("load", input=material.base)
        base = await publish_layer(rootfs, stratum0, directory)
        thin_image = directory / "thin.tar"
        write_thin_image(thin_image, name=THIN_IMAGE, descriptor=ThinDescriptor.of(base.thin))
        await node.engine.docker("load", input=thin_image)
        yield Rig(stratum0=stratum0, plain=plain, node=node, material=material)
