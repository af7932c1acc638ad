"""References to images, as Docker's users write them (grammar of github.com/distribution/reference)."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal, Self

from services.common.digest import Digest
from services.common.errors import InvalidValueError

__all__ = ["HUB_HOST", "HUB_NAMES", "ImageReference", "registry_of"]

HUB_HOST: Final = "registry-1.docker.io"
"""Where the registry API of Docker Hub is."""

HUB_NAMES: Final = frozenset({"docker.io", "index.docker.io", "registry.hub.docker.com", HUB_HOST})
"""Names of Docker Hub that people write; the API is at one of them."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DOMAIN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

_NAME_LIMIT: Final = 255
"""Longest name of a repository with its registry, in characters (Docker's and the registry's own limit)."""

_TEXT_LIMIT: Final = 1024
"""Longest reference that is looked at, in characters."""

_PORT_LIMIT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """An image in a registry. Made by `parse`, so what it holds is of its form."""

    host: str
    """Name or address of the registry, without port; IPv6 addresses in brackets."""
    port: int | None
    """Port of the registry; None for the scheme's own."""
    repository: str
    """Full path of the repository, such as `library/ubuntu`."""
    tag: str | None
    """The tag; None only where there is a digest."""
    digest: Digest | None
    """SHA-256 of the manifest, which wins over the tag."""
    scheme: Literal["https", "http"] = "https"
    """How the registry is spoken to."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `[HOST[:PORT]/]REPOSITORY[:TAG][@sha256:DIGEST]`; without a host it is an image of Docker Hub.

        Raises
        ------
        InvalidValueError
            The text is no such reference.
        """
        if not text or len(text) > _TEXT_LIMIT:
            raise InvalidValueError(f"not an image reference (1 to {_TEXT_LIMIT} characters): {text[:80]!r}")
        if "://" in text:
            raise InvalidValueError(f"an image reference has no scheme, write {text.split('://', 1)[1][:200]!r}")
        name, at, digest = text.partition("@")
        parsed_digest = Digest.from_oci(digest) if at else None
        name, tag = _split_tag(name, text)
        domain, path = _split_domain(name)
        host, port = _parse_domain(domain, text) if domain else (HUB_HOST, None)
        if host == HUB_HOST:
            path = path if "/" in path else f"library/{path}"
        _check_repository(path, domain, text)
        if tag is None and parsed_digest is None:
            tag = "latest"
        return cls(host=host, port=port, repository=path, tag=tag, digest=parsed_digest)

    @classmethod
    def parse_at(cls, registry: str, path: str) -> Self:
        """Read what is `HOST[:PORT]` for certain, and the path of a repository there.

        Raises
        ------
        InvalidValueError
            They are not of their form.
        """
        host, port = _parse_domain(registry, registry)
        _check_repository(path, registry, f"{registry}/{path}")
        return cls(host=host, port=port, repository=path, tag="latest", digest=None)

    @property
    def authority(self) -> str:
        """The registry as URLs name it: host, and port where it is given."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def api_url(self) -> str:
        """Base of the registry's API."""
        return f"{self.scheme}://{self.authority}/v2"

    @property
    def version(self) -> str:
        """What the registry knows the manifest by: the digest, or else the tag."""
        return self.digest.oci if self.digest is not None else str(self.tag)

    @property
    def origin(self) -> str:
        """The image as descriptors of thin images name where they come from."""
        if self.tag is None:
            return f"{self.repository}@{self.version}@{self.api_url}"
        return f"{self.repository}:{self.tag}@{self.api_url}"

    @property
    def name(self) -> str:
        """The reference in full, for people."""
        domain = "docker.io" if self.host == HUB_HOST and self.port is None else self.authority
        tag = "" if self.tag is None else f":{self.tag}"
        return f"{domain}/{self.repository}{tag}" + ("" if self.digest is None else f"@{self.digest.oci}")

    def __str__(self) -> str:
        return self.name


def _split_tag(name: str, text: str) -> tuple[str, str | None]:
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag or "]" in tag:
        return name, None
    if not _TAG.fullmatch(tag):
        raise InvalidValueError(
            f"not a tag (1 to 128 of letters, digits, '_', '.', '-', no '.' or '-' first): "
            f"{tag[:140]!r} in {text[:200]!r}"
        )
    return head, tag


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    # Docker's rule: a first component that cannot be one of a repository's path is a registry.
    if slash and (any(sign in first for sign in ".:[") or first == "localhost" or first != first.lower()):
        return first, rest
    return "", name


def registry_of(text: str) -> str:
    """Return the registry at `HOST[:PORT]` as `ImageReference.authority` names it, in lower case.

    Raises
    ------
    InvalidValueError
        The text is not of this form.
    """
    return ImageReference.parse_at(text, "any").authority.lower()


def _parse_domain(domain: str, text: str) -> tuple[str, int | None]:
    match = _DOMAIN.fullmatch(domain)
    if match is None or not _is_host(match["host"]):
        raise InvalidValueError(f"not the name or address of a registry: {domain[:260]!r} in {text[:200]!r}")
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 0 < port <= _PORT_LIMIT:
        raise InvalidValueError(f"not a port (1 to {_PORT_LIMIT}): {port} in {text[:200]!r}")
    return HUB_HOST if match["host"].lower() in HUB_NAMES else match["host"], port


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return _HOST.fullmatch(host) is not None
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


def _check_repository(path: str, domain: str, text: str) -> None:
    if len(path) + len(domain) > _NAME_LIMIT:
        raise InvalidValueError(
            f"the name of a repository has at most {_NAME_LIMIT} characters with its registry, "
            f"this one has {len(path) + len(domain)}: {text[:80]!r}..."
        )
    if path != path.lower():
        raise InvalidValueError(f"the name of a repository is in lower case: {text[:300]!r}")
    if not _REPOSITORY.fullmatch(path):
        raise InvalidValueError(
            f"not the name of a repository (lower-case letters and digits, separated by '.', '_', '__', '-' or '/'): "
            f"{path[:260]!r}"
        )
