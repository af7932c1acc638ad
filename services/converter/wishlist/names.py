"""Images as wish lists write them: `[https://]REGISTRY[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`."""

import re
from dataclasses import dataclass
from typing import Final, Literal, cast

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName

__all__ = ["WishedName"]

_LIMIT: Final = 1024
"""Longest text that is looked at, in characters."""
_PORT_LIMIT: Final = 65535
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HUB: Final = "registry.hub.docker.com"


@dataclass(frozen=True, slots=True)
class WishedName:
    """What an entry of a wish list names. Made by `parse`, so what it holds is of its form, but for `tag`."""

    scheme: Literal["https", "http"]
    registry: str
    repository: str
    tag: str | None
    """As it is written, not checked: it may be a pattern."""
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> "WishedName":
        """Read an entry.

        Raises
        ------
        InvalidValueError
            It is of another form; the text says what to write instead.
        """
        if not text or len(text) > _LIMIT:
            raise InvalidValueError(f"an image has 1 to {_LIMIT} characters: {text[:80]!r}")
        scheme, rest = _split_scheme(text)
        name, at, digest_text = rest.partition("@")
        if at and "/" in digest_text:
            # What stands before it may be a password, which no message repeats.
            raise InvalidValueError(
                "a user in the image's address: leave it out, credentials belong in the settings of registries"
            )
        registry, slash, path = name.partition("/")
        if not slash or (scheme is None and not _is_registry(registry)):
            raise InvalidValueError(
                f"no registry in {text[:200]!r}: write it out, such as {_HUB}/library/fedora:latest"
            )
        repository, colon, tag = path.partition(":")
        digest = _digest(digest_text, text) if at else None
        repository = repository.strip("/")
        _check(registry, repository, text)
        if colon and not tag:
            raise InvalidValueError(f"no tag after the ':' in {text[:200]!r}: write one, or leave the ':' out")
        known = cast("Literal['https', 'http']", scheme or "https")
        return cls(known, registry, repository, tag or None, digest)

    def check_tag(self) -> None:
        """See that the tag is one, and no pattern.

        Raises
        ------
        InvalidValueError
            It is not.
        """
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            raise InvalidValueError(
                f"not a tag (1 to 128 of letters, digits, '_', '.', '-', no '.' or '-' first): {self.tag[:140]!r}"
            )

    @property
    def whole(self) -> str:
        """The entry in full, as DUCC calls it."""
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest.oci}"
        return f"{self.scheme}://{self.registry}/{self.repository}{tag}{digest}"


def _split_scheme(text: str) -> tuple[str | None, str]:
    scheme, mark, rest = text.partition("://")
    if not mark:
        return None, text
    if scheme not in ("https", "http"):
        raise InvalidValueError(f"the scheme {scheme[:20]!r}: registries speak https, write https://REGISTRY/...")
    return scheme, rest


def _is_registry(text: str) -> bool:
    return "." in text or ":" in text or text == "localhost"


def _digest(digest: str, text: str) -> Digest:
    try:
        return Digest.from_oci(digest)
    except InvalidValueError:
        raise InvalidValueError(
            f"not a digest (sha256: and 64 lower-case hex digits) after the '@' in {text[:300]!r}"
        ) from None


def _check(registry: str, repository: str, text: str) -> None:
    try:
        ImageName(f"{registry}/{repository}:tag")
    except InvalidValueError:
        _explain(registry, repository, text)
        raise
    _, colon, port = registry.rpartition(":")
    if colon and not port.endswith("]") and not 0 < int(port) <= _PORT_LIMIT:
        raise InvalidValueError(f"not a port (1 to {_PORT_LIMIT}): {port} in {text[:300]!r}")


def _explain(registry: str, repository: str, text: str) -> None:
    """Say which part is wrong; where each alone is right, they are too long together."""
    try:
        ImageName(f"{registry}/name:tag")
    except InvalidValueError:
        raise InvalidValueError(f"not a registry (HOST or HOST:PORT): {registry[:260]!r} in {text[:300]!r}") from None
    if repository != repository.lower():
        raise InvalidValueError(
            f"a repository is in lower case: write {repository.lower()[:260]!r} in {text[:300]!r}"
        ) from None
    try:
        ImageName(f"r/{repository}:tag")
    except InvalidValueError:
        raise InvalidValueError(
            "not a repository (lower-case letters and digits, separated by '.', '_', '__', '-' or '/'; '*' and other "
            f"patterns are for tags only): {repository[:260]!r} in {text[:300]!r}"
        ) from None
