"""The outputs of an image: in which further ways a repository shows it, beside its layers and its documents.

As a document, in requests and in the record of an image::

    {"flat": {"others_read": false}, "podman": {"store": null}}

with those outputs that it has.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import ConfigDict, StrictBool, TypeAdapter, ValidationError

from services.common.errors import InvalidValueError

__all__ = [
    "NO_OUTPUTS",
    "FlatOutput",
    "ImageOutputs",
    "PodmanOutput",
    "outputs_document",
    "outputs_of_words",
    "read_outputs",
]

_STORE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_OTHERS_READ: Final = "others-read"
_CLOSED: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatOutput:
    """A root file system, for Apptainer and for what has no images at all."""

    __pydantic_config__: ClassVar = _CLOSED

    others_read: StrictBool = False
    """Whether everybody may read all of it, whatever the image says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodmanOutput:
    """A place in an additional image store of podman's.

    Raises
    ------
    InvalidValueError
        No store can have this name.
    """

    __pydantic_config__: ClassVar = _CLOSED

    store: str | None = None
    """Which of the repository's stores; None for the one that has no name."""

    def __post_init__(self) -> None:
        """Check the name once: it is that of a directory."""
        if self.store is not None and _STORE.fullmatch(self.store) is None:
            raise InvalidValueError(
                f"not the name of a store of podman's ([a-z0-9][a-z0-9._-]*, at most 64 characters): "
                f"{self.store[:80]!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutputs:
    """All outputs of one image; None for those that it has not."""

    __pydantic_config__: ClassVar = _CLOSED

    flat: FlatOutput | None = None
    podman: PodmanOutput | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.flat is not None or self.podman is not None


NO_OUTPUTS: Final = ImageOutputs()
"""Of an image that is shown by its layers and its documents only."""

_OUTPUTS: Final = TypeAdapter(ImageOutputs)


def outputs_of_words(words: Iterable[str]) -> ImageOutputs:
    """Read outputs as they are given on command lines: `flat`, `flat:others-read`, `podman`, `podman:STORE`.

    Raises
    ------
    InvalidValueError
        There is no such output, or one is given twice.
    """
    flat: FlatOutput | None = None
    podman: PodmanOutput | None = None
    for word in words:
        name, colon, detail = word.partition(":")
        if name == "flat" and flat is None and (not colon or detail == _OTHERS_READ):
            flat = FlatOutput(others_read=bool(colon))
        elif name == "podman" and podman is None:
            podman = PodmanOutput(store=detail if colon else None)
        else:
            raise InvalidValueError(
                f"not an output, or one a second time: {word[:80]!r}: write flat, flat:{_OTHERS_READ}, podman or "
                "podman:STORE"
            )
    return ImageOutputs(flat=flat, podman=podman)


def outputs_document(outputs: ImageOutputs) -> dict[str, Any]:
    """Return the document, which is ready for JSON."""
    document: dict[str, Any] = {}
    if outputs.flat is not None:
        document["flat"] = {"others_read": outputs.flat.others_read}
    if outputs.podman is not None:
        document["podman"] = {"store": outputs.podman.store}
    return document


def read_outputs(document: Mapping[str, Any]) -> ImageOutputs:
    """Read the document.

    Raises
    ------
    InvalidValueError
        It is of another form.
    """
    try:
        return _OUTPUTS.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(("outputs", *map(str, first["loc"])))
        raise InvalidValueError(f"{place}: {first['msg']}") from None
