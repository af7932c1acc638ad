"""The last good version of every wish list, on the disk.

One file a list, named by the SHA-256 of the list's source: a line of JSON that says what it is, then the list's bytes.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.common.durable import replace_file
from services.converter.errors import WishListSourceError
from services.converter.wishlist.sources.download import Validators
from services.converter.wishlist.tree import SIZE_LIMIT

__all__ = ["Kept", "KeptLists"]

_SUFFIX: Final = ".list"
_HEADER_LIMIT: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Kept:
    """A version of a list that had no error."""

    source: str
    """File or URL."""
    place: str
    """The place in the settings that it came from: the directory, for a file in one."""
    content: bytes
    validators: Validators
    """What its server knows it by."""


class KeptLists:
    """Keeps last good versions; everything here blocks, for a moment.

    Parameters
    ----------
    directory
        Where; made if it is not there. Nothing else may be in it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, source: str) -> Path:
        return self._directory / f"{hashlib.sha256(source.encode(errors='surrogateescape')).hexdigest()}{_SUFFIX}"

    def keep(self, kept: Kept) -> None:
        """Replace the last good version of a list.

        Raises
        ------
        WishListSourceError
            The directory cannot be written.
        """
        header = {
            "source": kept.source,
            "place": kept.place,
            "etag": kept.validators.etag,
            "last_modified": kept.validators.last_modified,
        }
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            replace_file(self._path(kept.source), json.dumps(header).encode() + b"\n" + kept.content)
        except OSError as error:
            raise WishListSourceError(
                f"cannot keep the last good version of {kept.source} in {self._directory}: {error.strerror}"
            ) from None

    def load(self, source: str) -> Kept | None:
        """Return the last good version of a list; None where there is none.

        Raises
        ------
        WishListSourceError
            It is there and cannot be read.
        """
        return self._load(self._path(source))

    def of_place(self, place: str) -> list[Kept]:
        """Return the last good versions of all lists of a place, by their sources; raises as `load`."""
        try:
            paths = sorted(self._directory.glob(f"*{_SUFFIX}"))
        except OSError as error:
            raise WishListSourceError(f"cannot read {self._directory}: {error.strerror}") from None
        found = [kept for path in paths if (kept := self._load(path)) is not None and kept.place == place]
        return sorted(found, key=lambda kept: kept.source)

    def forget(self, source: str) -> None:
        """Forget a list that is deliberately no more.

        Raises
        ------
        WishListSourceError
            The directory cannot be written.
        """
        try:
            self._path(source).unlink(missing_ok=True)
        except OSError as error:
            raise WishListSourceError(f"cannot remove the last version of {source}: {error.strerror}") from None

    def _load(self, path: Path) -> Kept | None:
        try:
            with path.open("rb") as file:
                header: Any = json.loads(file.readline(_HEADER_LIMIT))
                content = file.read(SIZE_LIMIT + 1)
            validators = Validators(header["etag"], header["last_modified"])
            return Kept(header["source"], header["place"], content, validators)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WishListSourceError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, LookupError, TypeError):
            raise WishListSourceError(f"{path} is no kept wish list: remove it if nothing else wrote there") from None
