"""The grammar of wish lists of version 2, from which the JSON Schema is made.

What one value must be is said here, what values have to do with each other in `entries`. Docstrings of fields are what
editors show.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue, WithJsonSchema
from pydantic_core import CoreSchema

from services.common.image_outputs import FlatOutput, ImageOutputs, PodmanOutput
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.converter.wishlist.durations import DURATION_PATTERN, parse_duration
from services.converter.wishlist.globs import GLOB_LIMIT, check_glob
from services.converter.wishlist.output_names import check_template
from services.converter.wishlist.problems import nearest
from services.converter.wishlist.versions import VersionRange
from services.registry.platform import Platform

__all__ = [
    "Defaults",
    "FlatEntry",
    "ImageEntry",
    "OutputsEntry",
    "PodmanEntry",
    "PolicyEntry",
    "RetentionEntry",
    "ThinEntry",
    "WishListDocument",
    "json_schema",
]

_SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TEXT: Final = {"type": ["string", "number"]}
"""A text, which may look like a number to an editor: `24.04` is a tag."""
_FOREVER: Final = "forever"
_PRIORITY_LIMIT: Final = 1000
_NEWEST_LIMIT: Final = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class _OrText:
    """Lets a text stand for a mapping with one key, or for a list of one."""

    def __init__(self, longer: Callable[[str], Any]) -> None:
        self._longer = longer

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:  # noqa: ANN401 - as pydantic has it
        longer = self._longer
        text_too = BeforeValidator(lambda value: longer(value) if isinstance(value, str) else value)
        return text_too.__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [_TEXT, handler(schema)]}


class _OrNames:
    """Lets a list of names of outputs, or one name, stand for a mapping of them."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:  # noqa: ANN401 - as pydantic has it
        return BeforeValidator(_named).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        name = {"enum": list(OutputsEntry.model_fields)}
        return {"anyOf": [name, {"type": "array", "items": name}, handler(schema)]}


class _Chosen:
    """Lets a key without a value choose an output as it usually is."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:  # noqa: ANN401 - as pydantic has it
        usual = BeforeValidator(lambda value: {} if value is None else value)
        return usual.__get_pydantic_core_schema__(source, handler)


def _named(value: object) -> object:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    for name in names:
        if name not in OutputsEntry.model_fields:
            raise ValueError(f"no output: {name!r:.80}: {nearest(str(name), OutputsEntry.model_fields)}")
    return {str(name): {} for name in names}


def _checked(check: Callable[[str], object]) -> AfterValidator:
    def keep(value: str) -> str:
        check(value)
        return value

    return AfterValidator(keep)


def _check_name(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ValueError(f"not a name (1 to 64 of letters, digits, '.', '_', '-', none of these first): {text[:80]!r}")


def _check_store(text: str) -> None:
    PodmanOutput(store=text)


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _seconds_or_forever(value: object) -> object:
    return None if value == _FOREVER else parse_duration(value) if isinstance(value, str) else _refused(value)


def _refused(value: object) -> object:
    raise ValueError(f"not a duration, such as 30d, nor 'forever': {value!r:.80}")


_Glob = Annotated[str, AfterValidator(check_glob), WithJsonSchema(_TEXT | {"maxLength": GLOB_LIMIT})]
_Globs = Annotated[tuple[_Glob, ...], _OrText(lambda text: (text,))]
_Name = Annotated[str, _checked(_check_name), WithJsonSchema(_TEXT)]
_Names = Annotated[tuple[_Name, ...], _OrText(lambda text: (text,))]
_Duration = Annotated[float, BeforeValidator(_seconds), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})]
_Period = Annotated[
    float | None,
    BeforeValidator(_seconds_or_forever),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"const": _FOREVER}]}),
]
_Repository = Annotated[str, AfterValidator(RepositoryName)]
_PlatformText = Annotated[str, _checked(Platform.parse)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ThinEntry(_Entry):
    """A thin image to make and push; a text alone is its `push`."""

    push: Annotated[str, _checked(check_template)]
    """Where to, such as `registry.example.org/thin/$(image)`: a name with a tag, and `$(registry)`, `$(repository)`,
    `$(tag)`, `$(reference)`, `$(image)`, `$(digest)`, `$(scheme)` of the original in it."""
    layout: LayerLayout = LayerLayout.FLAT
    """Paths that its descriptor names; `ducc` is unpacked.cern.ch's."""
    repository: _Repository | None = None
    """CVMFS repository that its descriptor names; the wish's first one if it is not given."""


class FlatEntry(_Entry):
    """Root file systems of the images, for Apptainer and for what has no images at all."""

    others_read: bool = False
    """Whether everybody may read all of them, whatever the images say."""


class PodmanEntry(_Entry):
    """Places of the images in an additional image store of podman's."""

    store: Annotated[str, _checked(_check_store)] | None = None
    """Which of the repository's stores, `podmanStores/NAME`; the one in `podmanStore` if it is not given."""


class OutputsEntry(_Entry):
    """In which further ways repositories show the images; their names alone, in a list, are as good."""

    flat: Annotated[FlatEntry | None, _Chosen()] = None
    """Root file systems, for Apptainer and for what has no images at all."""
    podman: Annotated[PodmanEntry | None, _Chosen()] = None
    """Places in an additional image store of podman's."""

    def chosen(self) -> ImageOutputs:
        """Return what is asked for."""
        return ImageOutputs(
            flat=None if self.flat is None else FlatOutput(others_read=self.flat.others_read),
            podman=None if self.podman is None else PodmanOutput(store=self.podman.store),
        )


class RetentionEntry(_Entry):
    """How long what is no longer wished stays: durations, or `forever`."""

    replaced: _Period = None
    """A version whose tag has moved on, from then on. 14d if nothing says otherwise."""
    dropped: _Period = None
    """An image that no list wishes any more. Forever if nothing says otherwise."""
    gone: _Period = None
    """An image that its registry definitely has no more. Forever if nothing says otherwise."""


class Defaults(_Entry):
    """What counts for every image that does not say otherwise."""

    repositories: Annotated[tuple[_Repository, ...], Field(min_length=1), _OrText(lambda text: (text,))] = ()
    """CVMFS repositories that the images are published in."""
    platforms: Annotated[tuple[_PlatformText, ...], Field(min_length=1), _OrText(lambda text: (text,))] = ()
    """Platforms, such as `linux/amd64` or `linux/arm/v7`. The plain name stands for the first. linux/amd64 if nothing
    says otherwise."""
    thin: Annotated[
        tuple[Annotated[ThinEntry, _OrText(lambda text: {"push": text})], ...], _OrText(lambda text: ({"push": text},))
    ] = ()
    """Thin images to make and push; `[]` for none."""
    outputs: Annotated[OutputsEntry, _OrNames()] = OutputsEntry()
    """In which further ways the repositories show the images: `[flat, podman]`, or a mapping that says more of each;
    `[]` for none."""
    policies: _Names = ()
    """Signature policies that the images must satisfy, besides those whose patterns match."""
    retention: RetentionEntry = RetentionEntry()
    """How long what is no longer wished stays."""
    interval: _Duration | None = None
    """How often the registry is asked, such as `15m`; the converter's setting if nothing says otherwise."""
    priority: Annotated[int, Field(ge=-_PRIORITY_LIMIT, le=_PRIORITY_LIMIT)] = 0
    """Higher ones come first, and decide where two wishes name one image."""
    may_fail: bool = False
    """Whether a failure leaves a run successful."""


class ImageEntry(Defaults):
    """Images of one repository; a text alone is its `image`."""

    image: str
    """`REGISTRY/REPOSITORY`, or with a tag, a pattern of tags, or a digest: `quay.io/ns/tool:v1`."""
    tags: Annotated[tuple[_Glob, ...], Field(min_length=1), _OrText(lambda text: (text,))] = ("*",)
    """Patterns, of which one must match: `*`, `?`, `[0-9]`, `[!a]`; everything else stands for itself."""
    exclude: _Globs = ()
    """Patterns, of which none may match."""
    versions: Annotated[str, _checked(VersionRange), WithJsonSchema(_TEXT)] | None = None
    """Range of versions in npm's notation, such as `>=1.2 <3`, `^1.2`, `1.x || 3.x`; tags that are no versions do not
    pass, nor do pre-releases that the range does not name."""
    max_age: _Duration | None = None
    """Greatest age of an image, such as `90d`, from its configuration's `created`."""
    newest: Annotated[int, Field(ge=1, le=_NEWEST_LIMIT)] | None = None
    """How many of those that pass all the rest: the newest."""
    newest_by: Literal["version", "created"] = "version"
    """What the newest are found by; by `version`, tags that are none do not pass."""


class PolicyEntry(_Entry):
    """Which images must be signed, and by whom. An image must satisfy every policy that applies to it."""

    name: _Name
    """How images and reports call it."""
    images: _Globs = ()
    """Patterns of names of images, such as `quay.io/ns/*`; none where it is for those that name it alone."""
    exclude: _Globs = ()
    """Patterns of names of images that it does not apply to all the same."""
    keys: Annotated[tuple[str, ...], Field(min_length=1), _OrText(lambda text: (text,))]
    """Public keys, of which one must have signed: files beside the wish list, or PEM texts."""
    identities: _Globs = ()
    """Patterns of what the signature may say that it is for; the image's own repository alone if there are none."""


class WishListDocument(_Entry):
    """A wish list: which images CVMFS repositories should have."""

    version: Annotated[Literal[2], BeforeValidator(lambda value: int(value) if value == "2" else value)]
    """Version of this format."""
    defaults: Defaults = Defaults()
    """What counts for every image that does not say otherwise."""
    policies: tuple[PolicyEntry, ...] = ()
    """Signature policies."""
    images: tuple[Annotated[ImageEntry, _OrText(lambda text: {"image": text})], ...] = ()
    """The images."""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of wish lists of version 2, for editors."""
    return {"$schema": _SCHEMA_DIALECT, **WishListDocument.model_json_schema()}
