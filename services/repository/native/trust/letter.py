"""Signed texts: the form that the manifest and the whitelist have in common.

::

    body, every line with its LF
    --
    hash of the body, as text
    signature of the hash line without its LF, to the end of the file
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.common.errors import InvalidValueError
from services.repository.native.records import ContentHash, HashAlgorithm
from services.repository.native.trust.errors import LetterError

__all__ = ["Letter", "seal"]

_SEPARATOR: Final = b"\n--\n"


@dataclass(frozen=True, slots=True)
class Letter:
    """A signed text that has been taken apart; its signature is not verified yet."""

    body: bytes
    """Everything before the separator, its last LF included."""
    hash_line: bytes
    """What is signed."""
    signature: bytes

    @classmethod
    def parse(cls, content: bytes) -> "Letter":
        """Take a signed text apart and compare the hash line with the body.

        Raises
        ------
        LetterError
            It does not have the form, or the hash line is of another body.
        """
        head, separator, rest = content.partition(_SEPARATOR)
        hash_line, line_end, signature = rest.partition(b"\n")
        if not separator or not line_end:
            raise LetterError("it is not a text, a line `--`, a hash and a signature")
        body = head + b"\n"
        try:
            claimed = ContentHash.parse(hash_line.decode("ascii"))
        except (InvalidValueError, UnicodeDecodeError):
            raise LetterError("its hash line is not a hash") from None
        found = ContentHash.of(body, claimed.algorithm)
        if found != claimed:
            raise LetterError(f"its text has the hash {found} and its hash line says {claimed}")
        return cls(body, hash_line, signature)

    def lines(self) -> list[str]:
        """Split the body.

        Raises
        ------
        LetterError
            It is not ASCII.
        """
        try:
            return self.body.decode("ascii").split("\n")[:-1]
        except UnicodeDecodeError:
            raise LetterError("it is not ASCII text") from None


def seal(body: bytes, sign: Callable[[bytes], bytes], *, algorithm: HashAlgorithm) -> bytes:
    """Sign a text.

    Parameters
    ----------
    body
        Whole lines.
    sign
        Signs the hash line.
    algorithm
        The repository's, by convention.
    """
    hash_line = str(ContentHash.of(body, algorithm)).encode()
    return body.removesuffix(b"\n") + _SEPARATOR + hash_line + b"\n" + sign(hash_line)
