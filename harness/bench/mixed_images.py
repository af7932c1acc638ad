"""Images of mixed content, as those of distributions and programs are, in a registry.

Every layer is made of numbered parts. A part has the same files wherever it is used, so that one image and fifty can
hold the same, and files of its own, so that no part is known because another one is.
"""

import hashlib
import io
import json
import mmap
import random
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, Final

import aiohttp

from harness.bench.publishing import add_file
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.repository.layer import VerifiedLayer

__all__ = ["MixedLayer", "StagedImage", "stage_image", "write_layer"]

_BLOCK: Final = 1 << 20
_LARGEST: Final = 2 << 20
"""Bytes of a file at most: what is larger may be stored in pieces, which two files can share."""
_USUAL: Final = 600
_SHAPE: Final = 0.8
"""Of the distribution of sizes: many small files, and few that have most of the bytes."""
_PACKED: Final = 0.1
"""How many files cannot be compressed any more."""
_DIRECTORY: Final = 40
"""Files of a directory."""
_OCI: Final = "application/vnd.oci.image"


@dataclass(frozen=True, kw_only=True)
class MixedLayer:
    """A layer's archive, compressed by gzip."""

    path: Path
    digest: Digest
    diff_id: Digest
    size: int
    """Bytes of the archive."""
    uncompressed_size: int

    @property
    def descriptor(self) -> dict[str, Any]:
        """What manifests say of it."""
        return {"mediaType": MediaType.TAR_GZIP, "digest": self.digest.oci, "size": self.size}

    @property
    def verified(self) -> VerifiedLayer:
        """What repositories are given."""
        return VerifiedLayer(
            path=self.path,
            digest=self.digest,
            diff_id=self.diff_id,
            size=self.size,
            uncompressed_size=self.uncompressed_size,
            limits=ArchiveLimits(),
        )


@dataclass(frozen=True, kw_only=True)
class StagedImage:
    """An image whose blobs are in a registry; it has no tag there before its manifest is put."""

    registry: str
    repository: str
    manifest: bytes

    async def put(self, tag: str) -> str:
        """Give it a tag; return the image's name with that.

        Raises
        ------
        aiohttp.ClientError
            The registry does not take it.
        """
        url = f"http://{self.registry}/v2/{self.repository}/manifests/{tag}"
        headers = {"Content-Type": f"{_OCI}.manifest.v1+json"}
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            await (await session.put(url, data=self.manifest, headers=headers)).read()
        return f"{self.registry}/{self.repository}:{tag}"


def write_layer(path: Path, *, rootfs: Path, parts: Sequence[int], size: int) -> MixedLayer:
    """Write a layer of mixed content (blocking).

    Parameters
    ----------
    path
        Gets the archive.
    rootfs
        What the content is cut out of: the tar of a root file system.
    parts
        Numbers of the parts.
    size
        Bytes of the files of each part.
    """
    archive = path.with_suffix(".tar")
    with tarfile.open(archive, "w") as tar:
        for part in parts:
            for number, content in enumerate(_files(rootfs, part, size)):
                add_file(tar, f"{part}/{number // _DIRECTORY}/{number}", content)
    digest, diff_id = hashlib.sha256(), hashlib.sha256()
    compressor = zlib.compressobj(1, wbits=31)
    with archive.open("rb") as plain, path.open("wb") as file:
        while block := plain.read(_BLOCK):
            diff_id.update(block)
            _add(compressor.compress(block), file, digest)
        _add(compressor.flush(), file, digest)
    uncompressed_size = archive.stat().st_size
    archive.unlink()
    return MixedLayer(
        path=path,
        digest=Digest(digest.hexdigest()),
        diff_id=Digest(diff_id.hexdigest()),
        size=path.stat().st_size,
        uncompressed_size=uncompressed_size,
    )


async def stage_image(registry: str, repository: str, layers: Sequence[MixedLayer]) -> StagedImage:
    """Upload what an image is made of, as far as the registry's repository does not have it.

    Raises
    ------
    aiohttp.ClientError
        The registry does not take it.
    """
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id.oci for layer in layers]},
        }
    ).encode()
    digest = Digest(hashlib.sha256(config).hexdigest())
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        place = f"http://{registry}/v2/{repository}/blobs"
        await _upload(session, place, digest, io.BytesIO(config))
        for layer in layers:
            with layer.path.open("rb") as file:
                await _upload(session, place, layer.digest, file)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": {"mediaType": f"{_OCI}.config.v1+json", "digest": digest.oci, "size": len(config)},
        "layers": [layer.descriptor for layer in layers],
    }
    return StagedImage(registry=registry, repository=repository, manifest=json.dumps(manifest).encode())


async def _upload(session: aiohttp.ClientSession, place: str, digest: Digest, content: IO[bytes]) -> None:
    async with session.head(f"{place}/{digest.oci}", raise_for_status=False) as known:
        if known.status == HTTPStatus.OK:
            return
    async with session.post(f"{place}/uploads/") as begun:
        location = begun.headers["Location"]
    # The location has a query already.
    async with session.put(f"{location}&digest={digest.oci}", data=content) as ended:
        await ended.read()


def _files(rootfs: Path, part: int, size: int) -> Iterator[bytes]:
    """Cut the files of a part."""
    chance = random.Random(part)  # noqa: S311 - the same files every time
    with rootfs.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as source:
        left = size
        while left:
            length = min(left, _LARGEST, int(_USUAL * chance.paretovariate(_SHAPE)))
            begin = chance.randrange(len(source) - length)
            yield chance.randbytes(length) if chance.random() < _PACKED else source[begin : begin + length]
            left -= length


def _add(content: bytes, file: IO[bytes], digest: "hashlib._Hash") -> None:
    digest.update(content)
    file.write(content)
