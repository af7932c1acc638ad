"""SHA-256 digests: the identity of layer archives (digest) and of their uncompressed tar streams (diff ID)."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator

from services.common.errors import InvalidValueError

__all__ = ["Digest", "DigestField"]

_HEX = re.compile(r"[0-9a-f]{64}")


class Digest(str):
    """A SHA-256 digest as 64 lower-case hex digits, the only form a digest has inside the suite.

    Parameters
    ----------
    value
        The hex digits, without an algorithm prefix.

    Raises
    ------
    InvalidValueError
        The value is anything else.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Check the form once, at the boundary."""
        if not _HEX.fullmatch(value):
            raise InvalidValueError(f"not a sha256 digest of 64 lower-case hex digits: {value[:80]!r}")
        return super().__new__(cls, value)

    @classmethod
    def from_oci(cls, value: str) -> Self:
        """Read the `sha256:<hex>` form of registries and image configurations."""
        algorithm, _, digits = value.partition(":")
        if algorithm != "sha256":
            raise InvalidValueError(f"only sha256 digests are supported: {value[:80]!r}")
        return cls(digits)

    @property
    def oci(self) -> str:
        """The `sha256:<hex>` form."""
        return f"sha256:{self}"

    @property
    def short(self) -> str:
        """The first twelve digits, for people."""
        return self[:12]


DigestField = Annotated[str, AfterValidator(Digest)]
"""A pydantic field that holds a `Digest`."""
