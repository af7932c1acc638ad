"""How the objects of one repository are made: chosen when it is created, and the same ever after.

Objects are named by their stored bytes, so another compressor would give all content new names, and nothing would be
found to be there already. The choice is therefore kept in the repository's root, in a file that clients never ask for.

Plain Python, since the processes that make objects start with it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal, Self, get_args, get_type_hints

from services.common.errors import InvalidValueError
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import HashAlgorithm

__all__ = ["FORMAT_FILE", "RepositoryFormat"]

FORMAT_FILE: Final = ".cvmfs_thin_format.json"
"""Relative to the root of the repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryFormat:
    """The choices of one repository; `of` checks them."""

    version: Literal["1"] = "1"
    """Version of this document."""
    compressor: Literal["igzip", "zlib"] = "igzip"
    """`igzip`, several times as fast, or `zlib` at level 6, which names objects as the stock tools do."""
    hash: Literal["sha1", "shake128"] = "sha1"
    """Algorithm of content hashes."""

    @classmethod
    def of(cls, choices: Mapping[str, object]) -> Self:
        """Take choices as texts, by their names; what is not there is as ever.

        Raises
        ------
        InvalidValueError
            There is no such choice.
        """
        for name, choice in choices.items():
            possible = _POSSIBLE.get(name)
            if possible is None:
                raise InvalidValueError(f"{name!r:.80} is nothing that can be chosen")
            if choice not in possible:
                raise InvalidValueError(f"{name} is {choice!r:.80}, not {' or '.join(possible)}")
        return cls(**choices)  # type: ignore[arg-type] # they are what has just been looked for

    @property
    def algorithm(self) -> HashAlgorithm:
        """Algorithm of content hashes."""
        return HashAlgorithm[self.hash.upper()]

    def encode(self) -> bytes:
        """Write the document."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read the document.

        Raises
        ------
        BrokenRepositoryError
            It is not one of a known version.
        """
        try:
            choices = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BrokenRepositoryError(f"{FORMAT_FILE} is no JSON: {error}") from None
        if not isinstance(choices, dict):
            raise BrokenRepositoryError(f"{FORMAT_FILE} is no JSON object")
        try:
            return cls.of(choices)
        except InvalidValueError as error:
            raise BrokenRepositoryError(f"{FORMAT_FILE}: {error}") from None


_POSSIBLE: Final = {name: get_args(choice) for name, choice in get_type_hints(RepositoryFormat).items()}
