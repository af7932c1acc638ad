"""Files that thin images go to: a docker archive or an OCI layout."""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import aiofiles

from services.common.digest import Digest
from services.common.threads import to_end
from services.docker2cvmfs.errors import OutputError
from services.thin_image.image import INDEX_TYPE, MANIFEST_TYPE, Blob, ThinImage, build_index

__all__ = ["docker_archive", "oci_archive", "write_file"]

_LAYOUT_VERSION: Final = b'{"imageLayoutVersion":"1.0.0"}'


def docker_archive(image: ThinImage, name: str) -> bytes:
    """Return what `docker load` takes.

    Parameters
    ----------
    name
        `REPOSITORY:TAG` that the image gets.
    """
    config, layer = f"{image.config.digest}.json", f"{image.layer.digest}.tar"
    manifest = json.dumps([{"Config": config, "RepoTags": [name], "Layers": [layer]}]).encode()
    return _tar({layer: image.layer.content, config: image.config.content, "manifest.json": manifest})


def oci_archive(images: Sequence[ThinImage], name: str) -> bytes:
    """Return an OCI image layout as a tar; several images are joined by an index."""
    blobs = [blob for image in images for blob in (image.layer, image.config, image.manifest)]
    if len(images) == 1:
        top, media_type = images[0].manifest, MANIFEST_TYPE
    else:
        top, media_type = build_index(images), INDEX_TYPE
        blobs.append(top)
    described = {**top.described(media_type), "annotations": {"org.opencontainers.image.ref.name": name}}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [described]}).encode()
    files = {f"blobs/sha256/{digest}": content for digest, content in _contents(blobs)}
    return _tar({"oci-layout": _LAYOUT_VERSION, "index.json": index, **files})


async def write_file(path: Path, content: bytes) -> None:
    """Write a file, which appears whole or not at all; a device or a pipe takes the content as it comes.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            # To replace it would take `/dev/stdout` or `/dev/null` from everybody on the machine.
            await to_end(_write(path, content))
        else:
            # A link stays, and what it leads to is replaced.
            await to_end(_replace(Path(os.path.realpath(path)), content))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None


async def _write(path: Path, content: bytes) -> None:
    async with aiofiles.open(path, "wb") as file:
        await file.write(content)


async def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        await _write(partial, content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _contents(blobs: Iterable[Blob]) -> Iterable[tuple[Digest, bytes]]:
    return sorted({blob.digest: blob.content for blob in blobs}.items())


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
