"""Places that wish lists are read from, as settings and command lines name them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from yarl import URL

from services.common.errors import InvalidValueError

__all__ = ["ListPath", "ListUrl", "Place", "parse_place"]

_LIMIT: Final = 2048
"""Longest place, in characters."""


@dataclass(frozen=True, slots=True)
class ListPath:
    """A file, or a directory of files `*.yaml` and `*.yml`; which of the two is seen at every reading."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ListUrl:
    """A file on a web server."""

    url: URL

    def __str__(self) -> str:
        return str(self.url)


Place = ListPath | ListUrl


def parse_place(text: str) -> Place:
    """Read the name of a place: a path, or an https URL.

    Raises
    ------
    InvalidValueError
        It is neither.
    """
    if not text or len(text) > _LIMIT or "\0" in text:
        raise InvalidValueError(f"not the place of a wish list (a path, or an https URL): {text[:80]!r}")
    scheme, mark, _ = text.partition("://")
    if not mark:
        return ListPath(Path(text))
    if scheme.lower() == "git+https":
        raise InvalidValueError(
            "a repository of git is not cloned: give the https URL at which its server has the file of a branch, such "
            "as https://gitlab.example.org/group/project/-/raw/main/recipe.yaml"
        )
    if scheme.lower() != "https":
        raise InvalidValueError(
            f"wish lists are read by https alone, not by {scheme[:20]!r}: anybody could change them"
        )
    try:
        url = URL(text)
    except ValueError:
        raise InvalidValueError(f"not a URL: {text[:200]!r}") from None
    if url.user is not None or url.password is not None:
        raise InvalidValueError(
            "a user in the URL of a wish list, which everybody sees: write user and password into files in "
            "CONVERTER_WISH_LISTS_CREDENTIALS"
        )
    if not url.host:
        raise InvalidValueError(f"a URL without host: {text[:200]!r}")
    return ListUrl(url.with_fragment(None))
