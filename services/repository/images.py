"""The documents of an image as they go into a repository and come out of it.

They lie below `.metadata`, in one directory for each platform: the first one in the directory that has the image's
name, which DUCC's tools know, the others below `.multiarch`::

    .metadata/quay.io/ns/tool:v1/manifest.json
    .metadata/.multiarch/arm64:v8/quay.io/ns/tool:v1/manifest.json

What is written there is the original bytes, so that digests can be computed from them again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.repository.outputs import NO_OUTPUTS, RECORD, ImageOutputs, of_record

__all__ = ["MULTIARCH_DIRECTORY", "ImageDocuments", "image_of_directory", "is_platform"]

MULTIARCH_DIRECTORY: Final = ".multiarch"
"""Directory below `.metadata` that has a directory for each platform that is not the first of its image."""

_PLATFORM: Final = re.compile(r"[a-z0-9][a-z0-9_]{0,31}(:[a-z0-9][a-z0-9._-]{0,31})?")
_NAME_LIMIT: Final = 255
"""Longest name of a directory, in bytes."""
_FILE: Final = re.compile(r"[a-z][a-z0-9-]{0,63}\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDocuments:
    """All documents of one image, which replace all that there were of it.

    Raises
    ------
    InvalidValueError
        A path leads elsewhere than into the directories of the image, its own directory has nothing in it, or its name
        is too long for a directory.
    """

    name: ImageName
    files: Mapping[str, bytes]
    """Contents by their paths, relative to `.metadata`."""
    outputs: ImageOutputs = NO_OUTPUTS
    """In which further ways the repository shows the image."""

    def __post_init__(self) -> None:
        """Check the paths once, so that whoever writes them need not."""
        for path in self.files:
            directory, _, file = path.rpartition("/")
            if _FILE.fullmatch(file) is None or image_of_directory(directory) != self.name:
                raise InvalidValueError(f"{path[:600]!r} is no document of the image {self.name}")
        if self.name.path not in self.directories:
            raise InvalidValueError(f"the image {self.name} has no document in {self.name.path}")
        if len(self.name.path.rpartition("/")[2]) > _NAME_LIMIT:
            raise InvalidValueError(f"no directory can be named as the last part of {self.name}: it is too long")

    @classmethod
    def published(cls, name: ImageName, files: Mapping[str, bytes]) -> Self | None:
        """Return an image as a repository has it; None if its record names no outputs.

        Parameters
        ----------
        files
            Its documents, by their paths relative to `.metadata`.
        """
        try:
            outputs = of_record(files.get(f"{name.path}/{RECORD}", b"{}"))
        except InvalidValueError:  # what others have put there says nothing of outputs
            return None
        return cls(name=name, files=files, outputs=outputs) if outputs else None

    @property
    def directories(self) -> tuple[str, ...]:
        """The directories that it has, relative to `.metadata`, in order."""
        return tuple(sorted({path.rpartition("/")[0] for path in self.files}))


def is_platform(name: str) -> bool:
    """Tell whether a directory below `.multiarch` can be that of a platform: `arm64`, or `arm:v7` with its variant."""
    return _PLATFORM.fullmatch(name) is not None


def image_of_directory(directory: str) -> ImageName | None:
    """Return the image whose documents a directory has.

    Parameters
    ----------
    directory
        Its path, relative to `.metadata`.
    """
    if directory.startswith(f"{MULTIARCH_DIRECTORY}/"):
        platform, _, directory = directory.partition("/")[2].partition("/")
        if not is_platform(platform):
            return None
    try:
        name = ImageName.of_path(directory)
    except InvalidValueError:
        return None
    # There is one way only to write a directory, whatever else is understood as a name.
    return name if name.path == directory else None
