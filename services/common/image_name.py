"""Names of images in a repository: what people call them by, and the directories of their documents.

DUCC's names, so that tools made for unpacked.cern.ch find them: the registry as it is written, the repository, and the
tag, or the digest of an image that has none::

    registry.hub.docker.com/library/fedora:latest     .metadata/registry.hub.docker.com/library/fedora:latest
    quay.io/ns/tool@sha256:0123..                     .metadata/quay.io/ns/tool:sha256:0123..
"""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator

from services.common.errors import InvalidValueError

__all__ = ["METADATA_DIRECTORY", "ImageName", "ImageNameField"]

METADATA_DIRECTORY: Final = ".metadata"
"""Directory of the documents of all images, relative to the root of the repository."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?P<registry>{_REGISTRY})/(?P<repository>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})|@sha256:(?P<digest>[0-9a-f]{64}))"
)
_LIMIT: Final = 255
"""Longest name of a repository with its registry, in characters (the registry's own limit)."""
_TEXT_LIMIT: Final = 512
"""Longest text that is looked at, in characters."""


class ImageName(str):
    """A name such as `quay.io/ns/tool:v1`: registry, repository, and a tag or a digest, all of them written out.

    It is used as a path, hence the narrow form: no component can be `.`, `..` or empty, or begin with a dot.

    Raises
    ------
    InvalidValueError
        The value is anything else.
    """

    __slots__ = ("path", "registry", "repository", "version")

    registry: str
    """The registry as it is written, with its port."""
    repository: str
    """Path of the repository in the registry."""
    version: str
    """The tag, or `sha256:` and the digest."""
    path: str
    """Directory of the image's documents below `METADATA_DIRECTORY`."""

    def __new__(cls, value: str) -> Self:
        """Check the form once, at the boundary."""
        match = _NAME.fullmatch(value) if len(value) <= _TEXT_LIMIT else None
        if match is None:
            raise InvalidValueError(
                "not the name of an image (REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST, such as "
                f"quay.io/ns/tool:v1): {value[:300]!r}"
            )
        name = super().__new__(cls, value)
        name.registry, name.repository = match["registry"], match["repository"]
        name.version = match["tag"] or f"sha256:{match['digest']}"
        name.path = f"{name.registry}/{name.repository}:{name.version}"
        if len(name.registry) + len(name.repository) > _LIMIT:
            raise InvalidValueError(
                f"the name of a repository has at most {_LIMIT} characters with its registry: {value[:80]!r}..."
            )
        return name

    @classmethod
    def of_path(cls, path: str) -> Self:
        """Read the directory below `METADATA_DIRECTORY`, as `path` gives it."""
        head, colon, digest = path.rpartition(":sha256:")
        return cls(f"{head}@sha256:{digest}" if colon else path)

    @property
    def tag(self) -> str | None:
        """The tag; None if it is named by its digest."""
        return None if self.version.startswith("sha256:") else self.version


ImageNameField = Annotated[str, AfterValidator(ImageName)]
"""A pydantic field that holds an `ImageName`."""
