"""What a signature of cosign's says: which digest was signed, and as an image of which repository.

Source: containers/image, docs/containers-signature.5.md; sigstore/cosign, specs/SIGNATURE_SPEC.md.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.common.digest import Digest
from services.common.errors import InvalidValueError

__all__ = ["PAYLOAD_LIMIT", "Payload"]

PAYLOAD_LIMIT: Final = 64 << 10
"""Largest payload, in bytes; those of cosign have some 300."""


class _Image(BaseModel):
    digest: Annotated[str, Field(alias="docker-manifest-digest")]


class _Identity(BaseModel):
    reference: Annotated[str, Field(alias="docker-reference", max_length=1024)]


class _Critical(BaseModel):
    identity: _Identity
    image: _Image
    type: Literal["cosign container image signature"]


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    critical: _Critical


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What was signed."""

    digest: Digest
    """SHA-256 of the image's manifest or index."""
    identity: str
    """What the signer calls the image: its repository, maybe with a tag."""

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Read a payload.

        Raises
        ------
        InvalidValueError
            It is none.
        """
        try:
            critical = _Wire.model_validate_json(content).critical
        except ValidationError:
            raise InvalidValueError("the payload is no signature of a container image") from None
        return cls(digest=Digest.from_oci(critical.image.digest), identity=critical.identity.reference)
