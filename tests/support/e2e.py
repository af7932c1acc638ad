"""Images and daemons of the end-to-end tests."""

import asyncio
import re
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Self

from harness.engine import Engine
from harness.images import write_image
from harness.node import Node
from harness.stratum0 import Stratum0
from harness.thin_images import PublishedLayer, Stratum, publish_layer, write_thin_image
from services.common.descriptor import ThinDescriptor, ThinLayer
from services.common.repository_name import RepositoryName

__all__ = ["BASE", "REPOSITORY", "THIN", "Images", "Nodes", "write_base"]

BASE: Final = "debian:trixie-slim"
"""The regular base image: a small Debian in one layer."""
THIN: Final = "debian:thin"
"""The same file system as a thin image."""
REPOSITORY: Final = RepositoryName("test.example.org")

_ROOTFS: Final = Path(__file__).parents[2] / ".cache" / "debian-trixie.tar"
_LEFT_OUT: Final = re.compile(
    r"\./(usr/share/|usr/lib/(python3|apt|locale|git-core)|usr/bin/(python3|perl|sqv)|var/(lib/dpkg|cache)/"
    r"|usr/lib/[^/]*-linux-gnu/(gconv/|perl-base/|ossl-modules/|libapt|libdb-|libsqlite3|libstdc\+\+|libsystemd))"
)
"""What no test needs: nine tenths of the files, and of the time that a load takes."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The base image in both forms, and how to make others.

    Parameters
    ----------
    directory
        Existing directory for archives.
    """

    directory: Path
    stratum0: Stratum
    base: Path
    """The base image's layer tar."""
    published: PublishedLayer
    """The same in the repository."""

    @classmethod
    async def make(cls, stratum0: Stratum, directory: Path) -> Self:
        """Publish the base image's layer and write the archives of both images."""
        base = directory / "base-layer.tar"
        await asyncio.to_thread(write_base, base)
        published = await publish_layer(base, stratum0, directory)
        self = cls(directory=directory, stratum0=stratum0, base=base, published=published)
        write_image(directory / "base.tar", name=BASE, layers=[base], config={"Cmd": ["bash"]})
        self.write_thin(THIN, published.thin)
        return self

    async def load(self, engine: Engine) -> None:
        """Load the regular base image."""
        await engine.docker("load", input=self.directory / "base.tar")

    async def load_thin(self, engine: Engine, name: str = THIN) -> None:
        """Load the thin base image, or another one that `write_thin` wrote."""
        await engine.docker("load", input=self._archive(name))

    def write_thin(self, name: str, *layers: ThinLayer) -> Path:
        """Write the archive of a thin image of these layers, base first."""
        archive = self._archive(name)
        write_thin_image(archive, name=name, descriptor=ThinDescriptor.of(*layers), config={"Cmd": ["bash"]})
        return archive

    async def publish(self, tar: Path) -> ThinLayer:
        """Publish a layer tar without deletions by the path that a commit takes."""
        return (await publish_layer(tar, self.stratum0, self.directory)).thin

    def _archive(self, name: str) -> Path:
        return self.directory / f"{name.replace(':', '-').replace('/', '-')}.tar"


def write_base(destination: Path) -> None:
    """Write the layer tar of the base image."""
    with tarfile.open(_ROOTFS) as whole, tarfile.open(destination, "w") as small:
        for member in whole:
            if not _LEFT_OUT.match(member.name):
                small.addfile(member, whole.extractfile(member) if member.isreg() else None)


class Nodes:
    """Starts worker nodes and ends them all.

    Parameters
    ----------
    directory
        Directory on a real file system for what they keep.
    stratum0
        Where their commits go and what their thin images come from.
    images
        The base image, which every node gets in both forms.
    """

    _numbers = count(1)

    def __init__(self, directory: Path, stratum0: Stratum0, images: Images) -> None:
        self._directory = directory
        self._stratum0 = stratum0
        self._images = images
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._stack.aclose()

    async def start(
        self,
        *,
        driver_env: Mapping[str, str] | None = None,
        engine_arguments: Sequence[str] = (),
        cvmfs_root: Path | None = None,
    ) -> Node:
        """Start a node and load the base image in both forms.

        Parameters
        ----------
        driver_env
            Settings of the graphdriver beside those of the repository and the object store; they win.
        engine_arguments
            Further arguments of dockerd.
        cvmfs_root
            Its `/cvmfs`; that of the stratum 0 by default.
        """
        name = f"node{next(self._numbers)}"
        node = Node(
            name=name,
            directory=self._directory / name,
            cvmfs_root=cvmfs_root or self._stratum0.cvmfs_root,
            driver_env={**self._stratum0.node_settings, **(driver_env or {})},
            engine_arguments=engine_arguments,
        )
        self._stack.push_async_callback(node.close)
        await node.start()
        await self._images.load(node.engine)
        await self._images.load_thin(node.engine)
        return node
