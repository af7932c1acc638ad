"""What a layer archive is and what it holds."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from services.common.digest import Digest

__all__ = ["LayerArchive", "LayerContent", "MediaType"]


class MediaType(StrEnum):
    """Media types of layers, from the OCI image specification."""

    TAR = "application/vnd.oci.image.layer.v1.tar"
    TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    TAR_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


@dataclass(frozen=True, slots=True)
class LayerArchive:
    """A layer archive in a file on local disk."""

    path: Path
    """The file."""
    digest: Digest
    """SHA-256 of the file."""
    diff_id: Digest
    """SHA-256 of the uncompressed tar stream."""
    size: int
    """Size of the file, in bytes."""
    uncompressed_size: int
    """Size of the uncompressed tar stream, in bytes."""
    media_type: MediaType
    """How the tar stream is compressed."""


@dataclass(frozen=True, slots=True)
class LayerContent:
    """What a layer archive held, as reported by those that read it."""

    entries: int
    """Number of entries in the archive."""
    tree_size: int
    """Sum of the sizes of the regular files, hard links counted once, in bytes."""
    stream_size: int
    """Size of the uncompressed tar stream, in bytes."""
    whiteouts: tuple[bytes, ...]
    """Paths that the layer deletes, in byte order."""
    opaque: tuple[bytes, ...]
    """Directories that hide what lower layers hold there, in byte order."""
    notes: tuple[str, ...]
    """What could not be kept, for people."""
