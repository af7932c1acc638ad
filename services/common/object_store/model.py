"""Names and metadata of layers in the bucket.

An object's key is `sha256/<digest>`. Its content type is the archive's media type; its user metadata are `diff-id`,
`uncompressed-size` (decimal, in bytes; absent where an archive was uploaded while it arrived, unread) and `repository`,
in HTTP `x-amz-meta-diff-id` and so on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName

__all__ = ["KEY_PREFIX", "AnnouncedLayer", "StoredLayer", "digest_of", "key_of"]

KEY_PREFIX: Final = "sha256/"
"""Start of every layer's key."""

DIFF_ID: Final = "diff-id"
"""Metadata: SHA-256 of the uncompressed tar stream, 64 hex digits."""
UNCOMPRESSED_SIZE: Final = "uncompressed-size"
"""Metadata: size of the uncompressed tar stream, in bytes."""
REPOSITORY: Final = "repository"
"""Metadata: fully qualified name of the repository that the layer is for."""

_NUMBER_LENGTH: Final = 18


def key_of(digest: Digest) -> str:
    """Key of a layer's object."""
    return f"{KEY_PREFIX}{digest}"


def digest_of(key: str) -> Digest:
    """Digest that a key names.

    Raises
    ------
    InvalidValueError
        It is not the key of a layer.
    """
    if not key.startswith(KEY_PREFIX):
        raise InvalidValueError(f"not the key of a layer ({KEY_PREFIX}DIGEST): {key[:200]!r}")
    return Digest(key.removeprefix(KEY_PREFIX))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncedLayer:
    """What is known of a layer archive before it is uploaded."""

    digest: Digest
    """SHA-256 that its bytes must have."""
    diff_id: Digest
    """SHA-256 of the uncompressed tar stream, as others claim; the publisher verifies it."""
    size: int
    """Size of the archive, in bytes."""
    media_type: MediaType
    """Form of the archive."""
    repository: RepositoryName
    """The repository that it is for."""
    uncompressed_size: int | None = None
    """Size of the uncompressed tar stream, in bytes; None where nobody has read it yet."""

    @property
    def key(self) -> str:
        """Key of the layer's object."""
        return key_of(self.digest)

    @property
    def description(self) -> dict[str, Any]:
        """Content type and user metadata of the object, as parameters of a request."""
        metadata = {DIFF_ID: self.diff_id, REPOSITORY: self.repository}
        if self.uncompressed_size is not None:
            metadata[UNCOMPRESSED_SIZE] = str(self.uncompressed_size)
        return {"ContentType": str(self.media_type), "Metadata": metadata}


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer archive in the bucket; what its object's metadata do not tell, or a listing does not show, is None."""

    digest: Digest
    """SHA-256 of the object, as its key claims."""
    size: int
    """Size of the object, in bytes."""
    last_modified: datetime
    """When it was stored, by the store's clock."""
    diff_id: Digest | None = None
    """SHA-256 of the uncompressed tar stream, as the uploader claims."""
    uncompressed_size: int | None = None
    """Size of the uncompressed tar stream, in bytes, as the uploader claims."""
    media_type: MediaType | None = None
    """How the tar stream is compressed, as the uploader claims."""
    repository: RepositoryName | None = None
    """The repository that the layer is for."""

    @classmethod
    def from_answer(cls, digest: Digest, answer: Mapping[str, Any], *, size: int) -> Self:
        """Read the answer to a HeadObject or GetObject.

        Raises
        ------
        InvalidValueError
            A metadata value is not of its form.
        """
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        diff_id, repository = metadata.get(DIFF_ID), metadata.get(REPOSITORY)
        content_type = answer.get("ContentType")
        return cls(
            digest=digest,
            size=size,
            last_modified=answer["LastModified"],
            diff_id=None if diff_id is None else Digest(diff_id),
            uncompressed_size=_number(metadata.get(UNCOMPRESSED_SIZE)),
            # Objects that others put here have other content types.
            media_type=next((known for known in MediaType if known == content_type), None),
            repository=None if repository is None else RepositoryName(repository),
        )


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _NUMBER_LENGTH):
        raise InvalidValueError(f"not a size in bytes: {text[:80]!r}")
    return int(text)
