"""How the objects of one repository are made: chosen when it is created, and the same ever after.

Objects are named by their stored bytes, so another compressor would give all content new names, and nothing would be
found to be there already. The choice is therefore kept in the repository's root, in a file that clients never ask for.
"""

from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import HashAlgorithm

__all__ = ["FORMAT_FILE", "RepositoryFormat"]

FORMAT_FILE: Final = ".cvmfs_thin_format.json"
"""Relative to the root of the repository."""


class RepositoryFormat(BaseModel):
    """The choices of one repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal["1"] = "1"
    """Version of this document."""
    compressor: Literal["igzip", "zlib"] = "igzip"
    """`igzip`, several times as fast, or `zlib` at level 6, which names objects as the stock tools do."""
    hash: Literal["sha1", "shake128"] = "sha1"
    """Algorithm of content hashes."""

    @property
    def algorithm(self) -> HashAlgorithm:
        """Algorithm of content hashes."""
        return HashAlgorithm[self.hash.upper()]

    def encode(self) -> bytes:
        """Write the document."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read the document.

        Raises
        ------
        BrokenRepositoryError
            It is not one of a known version.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise BrokenRepositoryError(f"{FORMAT_FILE}: {first['loc']}: {first['msg']}") from None
