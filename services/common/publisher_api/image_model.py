"""What publishers are asked about images, and what they answer.

Digests of images and of versions are written `sha256:HEX`, as registries write them; those of layers as bare digits, as
everywhere else in the interface.
"""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, PlainSerializer

from services.common.digest import Digest, DigestField
from services.common.image_name import ImageNameField
from services.common.image_outputs import NO_OUTPUTS, ImageOutputs
from services.common.times import Time

__all__ = [
    "CHECKED_LIMIT",
    "FOLLOWED",
    "CollectedFlat",
    "CollectedLayer",
    "Collection",
    "ImageAnswer",
    "ImageCheck",
    "ImageLayer",
    "ImagePage",
    "ImageRequest",
    "ImageState",
    "ImageVersion",
    "ImageVersions",
    "ImagesChecked",
    "KeptLayer",
    "OciDigestField",
    "Steps",
    "UnknownImages",
]

CHECKED_LIMIT: Final = 1000
"""Most images of one `ImagesChecked`."""

_PLATFORM = r"^[a-z0-9][a-z0-9._-]{0,63}/[a-z0-9][a-z0-9._-]{0,63}(/[a-z0-9][a-z0-9._-]{0,63})?$"

ImageState = str
"""`asked`, `resolving`, `fetching`, `ready`, `publishing`, `published`, `failed`, `removing` or `removed`."""

FOLLOWED: Final = frozenset({"asked", "resolving", "fetching", "ready", "publishing", "removing"})
"""States that something follows by itself."""


def _of_oci(value: object) -> object:
    return Digest.from_oci(value) if isinstance(value, str) and not isinstance(value, Digest) else value


OciDigestField = Annotated[
    DigestField, BeforeValidator(_of_oci), PlainSerializer(lambda digest: f"sha256:{digest}", return_type=str)
]
"""A pydantic field that holds a `Digest` and is written `sha256:HEX`."""


class _Asked(BaseModel):
    """What a client sends: a field that is not known is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answer(BaseModel):
    """What a publisher answers: what later ones add is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ImageRequest(_Asked):
    """An image that a repository should have."""

    name: ImageNameField
    """What it is called in the repository."""
    reference: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Where it is read, as Docker's users write it; None if that is its name."""
    digest: OciDigestField | None = None
    """What is published, whatever the tag says by then; None for what the tag says."""
    platforms: Annotated[tuple[Annotated[str, Field(pattern=_PLATFORM)], ...], Field(max_length=32)] = ()
    """The platforms, `OS/ARCHITECTURE[/VARIANT]`, the first of which has the name; none leave it to the publisher."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher ones come first."""
    verified: dict[str, JsonValue] | None = None
    """What was verified of its provenance; recorded with the image, and shown."""
    outputs: ImageOutputs = NO_OUTPUTS
    """In which further ways the repository shows it; asking again with others makes it anew."""
    keep_replaced_seconds: Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)] | None = None
    """How long the version that it replaces can be brought back; None for what the publisher is set to."""


class ImageCheck(_Asked):
    """An image that was found unchanged."""

    name: ImageNameField
    digest: OciDigestField


class ImagesChecked(_Asked):
    """Images that were found unchanged."""

    images: Annotated[tuple[ImageCheck, ...], Field(max_length=CHECKED_LIMIT)]


class UnknownImages(_Answer):
    """Those of the checked images that are not published with the digest that was named."""

    unknown: tuple[ImageNameField, ...]


class ImageLayer(_Answer):
    """A layer of an image."""

    digest: DigestField
    size: int
    """Bytes of its archive."""
    state: Annotated[str, Field(max_length=40)]
    """`missing`, `fetching`, `prepared` or `published`."""


class Steps(_Answer):
    """How long each step took last, in seconds; None where it has not been done."""

    resolving: float | None = None
    fetching: float | None = None
    publishing: float | None = None


class ImageAnswer(_Answer):
    """What the publisher says of an image."""

    name: ImageNameField
    reference: str
    digest: OciDigestField | None = None
    """The version that is asked for; None until it is known."""
    platforms: tuple[str, ...] = ()
    project: str | None = None
    """The project whose token asked for it; None if it was the general one."""
    priority: int = 0
    state: Annotated[ImageState, Field(max_length=40)]
    publisher: str | None = None
    """Name of the publisher that works on it; None if none does."""
    published_digest: OciDigestField | None = None
    """The version that readers of the repository see."""
    revision: int | None = None
    """The revision that brought it, where that is known."""
    reason: str | None = None
    """Why it failed last."""
    retryable: bool | None = None
    """Of a failed one: whether it is tried again by itself."""
    next_attempt: Time | None = None
    attempts: int = 0
    verified: dict[str, JsonValue] | None = None
    outputs: dict[str, JsonValue] = Field(default_factory=dict)
    """In which further ways the repository shows it, as a request has them."""
    places: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Where the published version's outputs are, by their names, relative to the root of the repository: of `flat` the
    name that people know, then the root file systems; of `podman` the stores. Only where one image is asked for."""
    report: dict[str, JsonValue] = Field(default_factory=dict)
    """What people must know of its flat images, by the digests of their configurations: of each kind of difference to
    what Apptainer itself would unpack, `count` and the `first` ones. Only where one image is asked for."""
    layers: tuple[ImageLayer, ...] = ()
    bytes_fetched: int = 0
    """Bytes that its layers took to fetch."""
    bytes_known: int = 0
    """Bytes of layers that were in the repository already."""
    steps: Steps = Steps()
    asked_at: Time
    checked_at: Time | None = None
    published_at: Time | None = None
    removed_at: Time | None = None
    updated_at: Time

    @property
    def is_refused(self) -> bool:
        """Whether it failed and is not tried again by itself."""
        return self.state == "failed" and not self.retryable

    def has(self, digest: Digest) -> bool:
        """Whether readers of the repository see this version of it."""
        return self.published_digest == digest


class ImagePage(_Answer):
    """Some images."""

    images: tuple[ImageAnswer, ...]
    next: str | None = None
    """The request for those that follow, if there may be any."""


class ImageVersion(_Answer):
    """A version of an image."""

    digest: OciDigestField
    published_at: Time | None = None
    replaced_at: Time | None = None
    removed_at: Time | None = None
    collected_at: Time | None = None
    """When its layers went, those that no other image named; it can be brought back until then."""


class ImageVersions(_Answer):
    """The versions of an image that the publisher knows."""

    versions: tuple[ImageVersion, ...]


class CollectedLayer(_Answer):
    """A layer that a collection takes out of the repository."""

    digest: DigestField
    size: int | None = None
    """Bytes of its files, where that is known."""
    named_last: Time
    """Until when an image named it."""


class CollectedFlat(_Answer):
    """A flat image that a collection takes out of the repository."""

    digest: DigestField
    """SHA-256 of its configuration."""
    named_last: Time
    """Until when a name led to it, or it was kept."""


class KeptLayer(_Answer):
    """A layer that no image names, or a flat image that no name leads to, and that stays all the same."""

    digest: DigestField
    reason: str


class Collection(_Answer):
    """What a collection took out, or would."""

    dry_run: bool
    at: Time
    revision: int | None = None
    """The revision that it made, where that is known."""
    layers: tuple[CollectedLayer, ...]
    flats: tuple[CollectedFlat, ...] = ()
    kept: tuple[KeptLayer, ...] = ()
