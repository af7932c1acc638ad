"""Brings thin images to where they are wanted."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.command_line import write_output
from services.docker2cvmfs import engine
from services.docker2cvmfs.outputs import docker_archive, oci_archive, write_file
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from services.thin_image.image import ThinImage
from services.thin_image.push import push_thin

__all__ = ["Destination", "DockerFile", "Load", "OciFile", "Push", "deliver"]


@dataclass(frozen=True, slots=True)
class Push:
    """The thin image goes to a registry."""

    reference: ImageReference


@dataclass(frozen=True, slots=True)
class Load:
    """It goes to the Docker engine."""

    name: str


@dataclass(frozen=True, slots=True)
class DockerFile:
    """It becomes a docker archive."""

    name: str
    path: Path | None
    """None is the standard output."""


@dataclass(frozen=True, slots=True)
class OciFile:
    """It becomes a tar of an OCI image layout."""

    name: str
    path: Path | None
    """None is the standard output."""


Destination = Push | Load | DockerFile | OciFile


async def deliver(thin: Sequence[ThinImage], destination: Destination, registry: RegistryClient) -> str:
    """Bring images to their destination; return what they are called there.

    Raises
    ------
    RegistryError
        The registry failed or refused.
    EngineError
        The Docker engine did not take the image.
    OutputError
        A file could not be written.
    StandardOutputError
        The standard output could not be.
    """
    match destination:
        case Push(reference):
            digest = await push_thin(registry, reference, thin)
            return f"{reference.name}@{digest.oci}"
        case Load(name):
            await engine.load(docker_archive(thin[0], name))
            return name
        case DockerFile(name, path):
            return await _write(docker_archive(thin[0], name), path)
        case OciFile(name, path):
            return await _write(oci_archive(thin, name), path)


async def _write(archive: bytes, path: Path | None) -> str:
    if path is None:
        await asyncio.to_thread(write_output, archive)
        return "standard output"
    await write_file(path, archive)
    return str(path)
