"""Thin images made of ordinary ones: the layer is published by the same path a commit takes."""

import asyncio
import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from harness.engine import Engine
from harness.images import write_image
from harness.s3 import S3Access
from services.common.archive.compression import open_archive, write_archive
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerArchive
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.unpack import unpack
from services.common.descriptor import DESCRIPTOR_NAME, LayerUrl, ThinDescriptor, ThinLayer
from services.common.digest import Digest
from services.common.layout import LayerLayout
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName

__all__ = ["PublishedLayer", "Stratum", "publish_layer", "read_descriptor", "write_thin_image"]


class Stratum(Protocol):
    """Where layers are published."""

    @property
    def repository(self) -> RepositoryName:
        """Name of the repository."""

    @property
    def access(self) -> S3Access:
        """The bucket that layers are uploaded to, for a user who may."""

    async def visible(self, digest: Digest) -> None:
        """Wait until the repository shows a layer."""


@dataclass(frozen=True, kw_only=True)
class PublishedLayer:
    """A layer in the repository."""

    archive: LayerArchive
    """What was uploaded; its file is gone."""
    thin: ThinLayer
    """How descriptors name it."""


async def publish_layer(tar: Path, stratum0: Stratum, directory: Path) -> PublishedLayer:
    """Pack a file system given as a tar, upload it, and wait until the notified publisher has published it.

    Parameters
    ----------
    tar
        The file system, a layer tar without deletions.
    stratum0
        Where it is published.
    directory
        Existing directory for what is needed in between.
    """
    tree, spooled = directory / "tree", directory / "layer"
    try:
        archive = await asyncio.to_thread(_repack, tar, tree, spooled)
        async with ObjectStore(settings=stratum0.access.settings) as store:
            await store.upload(archive, repository=stratum0.repository)
    finally:
        await asyncio.to_thread(shutil.rmtree, tree)
        spooled.unlink(missing_ok=True)
    await stratum0.visible(archive.digest)
    url = LayerUrl.of(stratum0.repository, archive.digest, LayerLayout.FLAT)
    return PublishedLayer(archive=archive, thin=ThinLayer(digest=archive.digest, url=url))


def _repack(tar: Path, tree: Path, destination: Path) -> LayerArchive:
    """Unpack to a private directory and pack from there, as a commit packs an upper directory."""
    limits = ArchiveLimits()
    tree.mkdir(mode=0o700)
    with tar.open("rb", buffering=0) as file:
        unpack(open_archive(file, limits=limits), tree, deletions=OverlayDeletions(), limits=limits)
    tree.chmod(0o755)
    return write_archive(tree, destination)


def write_thin_image(
    destination: Path, *, name: str, descriptor: ThinDescriptor, config: dict[str, Any] | None = None
) -> None:
    """Write the docker archive of a thin image: one layer that holds nothing but its descriptor."""
    layer = destination.with_suffix(".layer")
    content = descriptor.encode()
    member = tarfile.TarInfo(DESCRIPTOR_NAME)
    member.size = len(content)
    with tarfile.open(layer, "w") as archive:
        archive.addfile(member, io.BytesIO(content))
    write_image(destination, name=name, layers=[layer], config=config)
    layer.unlink()


async def read_descriptor(engine: Engine, image: str, directory: Path) -> ThinDescriptor:
    """Read the descriptor of an image on an engine, from what `docker save` gives; `directory` holds it meanwhile.

    Raises
    ------
    LookupError
        The image is not thin.
    """
    archive = directory / "descriptor.tar"
    await engine.docker("save", image, output=archive)
    try:
        return await asyncio.to_thread(_topmost_descriptor, archive, image)
    finally:
        archive.unlink()


def _topmost_descriptor(archive: Path, image: str) -> ThinDescriptor:
    with tarfile.open(archive) as outer:
        (manifest,) = json.load(_member(outer, "manifest.json"))
        for layer in reversed(manifest["Layers"]):
            with tarfile.open(fileobj=_member(outer, layer)) as inner:
                if DESCRIPTOR_NAME in inner.getnames():
                    return ThinDescriptor.parse(_member(inner, DESCRIPTOR_NAME).read(), where=image)
    raise LookupError(f"{image} is no thin image: none of its layers holds {DESCRIPTOR_NAME}")


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    member = archive.extractfile(name)
    if member is None:
        raise LookupError(f"{name} is no file in {archive.name!r}")
    return member
