"""Public keys that wish lists name: PEM texts, or files beside the list."""

from pathlib import Path
from typing import Final

from services.common.errors import InvalidValueError
from services.converter.model import VerificationKey

__all__ = ["KeyFiles"]

_LIMIT: Final = 64 << 10
"""Largest file, in bytes: more is no key."""
_BEGIN: Final = b"-----BEGIN "
_PUBLIC: Final = b"-----BEGIN PUBLIC KEY-----"


class KeyFiles:
    """Reads keys, and remembers from which files, since what they hold may change.

    Parameters
    ----------
    directory
        Where relative paths start; None for lists that come from elsewhere, which may name no files of this machine.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self.read: set[Path] = set()

    def load(self, text: str) -> VerificationKey:
        """Return a key, with the name that reports call it by.

        Parameters
        ----------
        text
            PEM, or the path of a file that holds it.

        Raises
        ------
        InvalidValueError
            There is no public key.
        """
        if text.lstrip().startswith(_BEGIN.decode()):
            content = text.strip().encode()
            _check(content, "the text")
            return VerificationKey(name="a key in the list", pem=content)
        if self._directory is None:
            raise InvalidValueError(
                f"a file ({text[:200]!r}) in a wish list from a URL: write the key's PEM text into the list"
            )
        path = self._directory / text
        self.read.add(path)
        content = _content(path)
        _check(content, str(path))
        return VerificationKey(name=path.name, pem=content)


def _content(path: Path) -> bytes:
    try:
        # A pipe or a device would be waited for.
        there = path.is_file()
    except ValueError:
        raise InvalidValueError(f"not the path of a key: {str(path)[:200]!r}") from None
    if not there:
        raise InvalidValueError(f"no file: {path}: write the path of a public key, relative to the wish list")
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
    except OSError as error:
        raise InvalidValueError(f"cannot read the key {path}: {error.strerror}") from None
    if len(content) > _LIMIT:
        raise InvalidValueError(f"{path} is larger than {_LIMIT >> 10} KiB: that is no public key")
    return content.strip()


def _check(content: bytes, where: str) -> None:
    if b"PRIVATE KEY" in content:
        raise InvalidValueError(f"{where} holds a private key: put the public one there, and take the other away")
    if not content.startswith(_PUBLIC):
        raise InvalidValueError(f"{where} holds no public key: it begins with '{_PUBLIC.decode()}'")
