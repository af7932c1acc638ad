"""What a layer archive is, as a file and by its content."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from services.common.digest import Digest

__all__ = ["ArchiveIdentity", "LayerArchive", "LayerContent", "MediaType"]


class MediaType(StrEnum):
    """Media types of layers (OCI image specification, layer.md)."""

    TAR = "application/vnd.oci.image.layer.v1.tar"
    TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    TAR_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveIdentity:
    """What an archive's bytes turned out to be, known when all of them have been read."""

    digest: Digest
    """SHA-256 of the bytes as stored."""
    diff_id: Digest
    """SHA-256 of the uncompressed tar stream."""
    size: int
    """Number of bytes as stored."""
    uncompressed_size: int
    """Size of the uncompressed tar stream, in bytes."""
    media_type: MediaType
    """The form that the bytes have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerArchive:
    """A layer archive in a local file."""

    path: Path
    """The file."""
    digest: Digest
    """SHA-256 of the file's bytes."""
    diff_id: Digest
    """SHA-256 of the uncompressed tar stream."""
    size: int
    """Size of the file, in bytes."""
    uncompressed_size: int
    """Size of the uncompressed tar stream, in bytes."""
    media_type: MediaType
    """The form of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContent:
    """What a layer's tar stream holds. Paths are relative to the layer's root, without `.` or empty components."""

    entries: int
    """Number of entries in the stream, whiteouts included."""
    tree_size: int
    """Sum of the sizes of the layer's files and symbolic links, in bytes; hard links count once, holes count."""
    stream_size: int
    """Size of the stream up to its end, in bytes."""
    whiteouts: tuple[bytes, ...]
    """Paths that the layer deletes, in byte order; none of them exists in the layer."""
    opaque: tuple[bytes, ...]
    """Directories of the layer that hide what lower layers hold there, in byte order; the root is the empty path."""
    notes: tuple[str, ...]
    """What could not be kept and harms nothing, for people; bounded in number."""
