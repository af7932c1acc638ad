"""The layer sidecar: what a layer's files in a repository cannot say about the layer.

Publishing through `cvmfs_server` loses a layer's deletions (whiteouts and opaque directories). They travel in this
document, written beside the layer in the same transaction; its presence is also the mark that the layer is whole.
Paths are relative to the layer's root. A path is bytes, JSON is text: bytes that are not printable ASCII, and `%`, are
percent-encoded.
"""

from typing import Annotated, Final, Literal, Self
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from services.common.digest import DigestField
from services.common.errors import InvalidValueError

__all__ = ["SIDECAR_LIMIT", "LayerSidecar", "decode_directory", "decode_path", "encode_path"]

SIDECAR_LIMIT: Final = 256 << 20
"""Largest sidecar that is read, in bytes: a layer that deletes a million files of long names."""

_SAFE: Final = "/!#$&'()*+,:;=?@[]<>{}|^~`\" \\"
"""Printable ASCII that stays as it is; quote_from_bytes adds letters, digits and `_.-~`."""


def encode_path(path: bytes) -> str:
    """Write a path as printable ASCII."""
    return quote_from_bytes(path, safe=_SAFE)


def decode_path(text: str) -> bytes:
    """Read a path from its printable form.

    Raises
    ------
    InvalidValueError
        The path is absolute, empty, or has an empty, `.` or `..` component or a NUL byte.
    """
    path = unquote_to_bytes(text)
    if b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise InvalidValueError(f"not a path below a layer's root: {text[:200]!r}")
    return path


def decode_directory(text: str) -> bytes:
    """Read the path of a directory from its printable form; the layer's root is the empty path.

    Raises
    ------
    InvalidValueError
        The path is not one below the layer's root either.
    """
    return decode_path(text) if text else b""


def _path_text(text: str) -> str:
    decode_path(text)
    return text


def _directory_text(text: str) -> str:
    decode_directory(text)
    return text


class LayerSidecar(BaseModel):
    """The document beside a published layer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal["1"] = "1"
    """Version of this form."""
    digest: DigestField
    """SHA-256 of the layer archive as stored."""
    diff_id: DigestField
    """SHA-256 of the uncompressed tar stream."""
    archive_size: NonNegativeInt
    """Size of the layer archive as stored, in bytes."""
    uncompressed_size: NonNegativeInt
    """Size of the uncompressed tar stream, in bytes."""
    tree_size: NonNegativeInt
    """Sum of the sizes of the layer's files and symbolic links, hard links counted once, in bytes."""
    entries: NonNegativeInt
    """Number of entries in the archive."""
    deletions: Literal["listed", "in-tree"] = "listed"
    """Where deletions are: in this document's lists only, or in the tree too, as overlay lowers have them."""
    whiteouts: tuple[Annotated[str, AfterValidator(_path_text)], ...] = ()
    """Paths that the layer deletes, percent-encoded, in byte order."""
    opaque: tuple[Annotated[str, AfterValidator(_directory_text)], ...] = ()
    """Directories of the layer that hide what lower layers hold there, percent-encoded, in byte order; the layer's root
    is the empty path."""
    tar_split: bool = False
    """Whether the repository has what podman needs to make the layer's tar stream again (`layer.tar-split.gz`)."""
    notes: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """What of the archive could not be kept, for people."""

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """Read a sidecar from a repository.

        Raises
        ------
        InvalidValueError
            The content is not a sidecar of a known version.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "document"
            raise InvalidValueError(f"{where}: not a layer sidecar: {place}: {first['msg']}") from None

    @property
    def needs_mask(self) -> bool:
        """Whether a driver has to add the deletions that the tree does not hold."""
        return self.deletions == "listed" and bool(self.whiteouts or self.opaque)

    def encode(self) -> bytes:
        """Write the document."""
        return self.model_dump_json(indent=1).encode() + b"\n"
