"""The thin image descriptor, `thin.json`, version 1.0.

The form was published with the first thin images in 2018 and is kept exactly: `version`, `layers` (manifest order, base
first, at least one) and the optional `min_version`, `origin` and `comment`. Fields that a later 1.x may add survive a
round trip.

The name alone makes no descriptor: images have files of this name that mean something else. What is not of this form
to the last element is an ordinary file (`NotADescriptorError`). What is of this form and cannot be used all the same,
since it needs a newer reader or has too many layers, is an error: nobody's content may vanish for it.
"""

import json
import re
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from services.common.digest import Digest, DigestField
from services.common.errors import InvalidValueError
from services.common.layout import LayerLayout, layer_tree
from services.common.repository_name import RepositoryName

__all__ = [
    "DESCRIPTOR_LIMIT",
    "DESCRIPTOR_NAME",
    "LAYER_LIMIT",
    "LayerUrl",
    "NotADescriptorError",
    "ThinDescriptor",
    "ThinLayer",
]

DESCRIPTOR_NAME: Final = "thin.json"
"""Name of the file, at the root of an image layer, that makes the image a thin one."""

DESCRIPTOR_LIMIT: Final = 1 << 20
"""Largest descriptor that is read, in bytes; some 5,000 layers."""

LAYER_LIMIT: Final = 500
"""Most layers of a descriptor: the kernel's overlay stacks no more (OVL_MAX_STACK)."""

_SUPPORTED: Final = (1, 0)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,255}")
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


class NotADescriptorError(InvalidValueError):
    """A file of the descriptor's name is not of its form: an ordinary file."""


class LayerUrl(str):
    """The place of a layer: `cvmfs://<repository>/<path>`, the path in a form that some publisher writes.

    The path ends in `<digest>`, in a directory of the publisher's choice (2018), or is DUCC's
    `.layers/<2 hex>/<digest>/layerfs`; anything else would let a descriptor mount arbitrary directories.

    Raises
    ------
    InvalidValueError
        The value is not of this form.
    """

    __slots__ = ("digest", "path", "repository")

    digest: Digest
    """The digest that the path ends in."""
    path: str
    """Path of the layer's files, relative to the root of the repository."""
    repository: RepositoryName
    """The repository that holds the layer."""

    def __new__(cls, value: str) -> Self:
        """Check the form once, at the boundary."""
        scheme, _, rest = value.partition("://")
        repository, _, path = rest.partition("/")
        if scheme != "cvmfs":
            raise InvalidValueError(f"a layer URL has the form cvmfs://REPOSITORY/PATH: {value[:200]!r}")
        self = super().__new__(cls, value)
        self.repository = RepositoryName(repository)
        parts = path.split("/")
        digest = parts[-2] if parts[-1] == "layerfs" and len(parts) > 1 else parts[-1]
        try:
            self.digest = Digest(digest)
        except InvalidValueError:
            raise InvalidValueError(f"a layer URL names the layer by its digest: {value[:200]!r}") from None
        self.path = path
        if self.has_foreign_layout and path != layer_tree(self.digest):
            raise InvalidValueError(
                f"a layer URL that ends in layerfs has .layers/XX/DIGEST before it: {value[:200]!r}"
            )
        if not all(_SEGMENT.fullmatch(part) and part not in (".", "..") for part in parts):
            raise InvalidValueError(f"a layer URL's path holds letters, digits, dots, dashes only: {value[:200]!r}")
        return self

    @property
    def has_foreign_layout(self) -> bool:
        """Whether a publisher that writes no sidecars may have put the layer there (unpacked.cern.ch)."""
        return self.path.endswith("/layerfs")

    @classmethod
    def of(cls, repository: RepositoryName, digest: Digest, layout: LayerLayout) -> Self:
        """Build the URL of a layer that the suite publishes itself."""
        return cls(f"cvmfs://{repository}/{layout.path(digest)}")


class ThinLayer(BaseModel):
    """One layer of a thin image."""

    model_config = ConfigDict(frozen=True, extra="allow")

    digest: DigestField
    """SHA-256 of the layer archive as stored (compressed)."""
    url: Annotated[str, AfterValidator(LayerUrl)]
    """Where the layer's files are."""

    @property
    def location(self) -> LayerUrl:
        """The URL in its parsed form."""
        return LayerUrl(self.url)

    @property
    def id(self) -> Digest:
        """The digest in its checked form."""
        return Digest(self.digest)

    def model_post_init(self, _context: object, /) -> None:
        """Refuse a layer whose URL names another one."""
        if self.location.digest != self.digest:
            raise InvalidValueError(f"layer {self.digest} has the URL of another layer: {self.url}")


def _version(value: str) -> str:
    if not _VERSION.fullmatch(value):
        raise InvalidValueError(f"a version has the form MAJOR.MINOR: {value[:40]!r}")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InvalidValueError("a name comes twice in one object")
    return fields


def _refuse_constant(name: str) -> None:
    raise InvalidValueError(f"{name} is no JSON")


def _no_descriptor(where: str, problems: str) -> NotADescriptorError:
    return NotADescriptorError(f"{where}: {DESCRIPTOR_NAME} is not a thin image descriptor: {problems}")


class ThinDescriptor(BaseModel):
    """The content of `thin.json`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    version: Annotated[str, AfterValidator(_version)]
    """Version of the form."""
    min_version: Annotated[str, AfterValidator(_version)] | None = None
    """Oldest version of the form that a reader must know; `version` where it is absent."""
    origin: str | None = None
    """The image it was made from, `<name>:<tag>@<registry URL>`."""
    layers: Annotated[tuple[ThinLayer, ...], Field(min_length=1)]
    """The layers, base first."""
    comment: str | None = None
    """Free text."""

    @classmethod
    def of(cls, *layers: ThinLayer, origin: str | None = None) -> Self:
        """Make a descriptor of the present version, its layers base first.

        Raises
        ------
        InvalidValueError
            It would have more layers than an overlay can stack, or none.
        """
        if not layers:
            raise InvalidValueError("a thin image has at least one layer")
        version = ".".join(map(str, _SUPPORTED))
        return cls(version=version, origin=origin, layers=layers).with_layers()

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """Read a descriptor from outside.

        Parameters
        ----------
        content
            The bytes of the file.
        where
            What the file belongs to, for errors.

        Raises
        ------
        NotADescriptorError
            The content is not of the form.
        InvalidValueError
            It is a descriptor that cannot be used here: it needs a newer reader, or has too many layers.
        """
        if len(content) > DESCRIPTOR_LIMIT:
            raise NotADescriptorError(f"{where}: {DESCRIPTOR_NAME} is larger than {DESCRIPTOR_LIMIT} bytes")
        try:
            # Twice, since each reader lets pass what the other one does not: NaN and names that come twice; half of a
            # surrogate pair and any depth.
            json.loads(content.decode(), object_pairs_hook=_without_repetition, parse_constant=_refuse_constant)
            self = cls.model_validate_json(content)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
                for detail in error.errors(include_url=False, include_input=False)[:5]
            )
            raise _no_descriptor(where, problems) from None
        except (ValueError, RecursionError) as error:
            raise _no_descriptor(where, f"document: {error}") from None
        needed = tuple(map(int, (self.min_version or self.version).split(".")))
        # A newer minor version adds fields only, so it can be read unless min_version says otherwise.
        if needed[0] != _SUPPORTED[0] or (self.min_version is not None and needed > _SUPPORTED):
            raise InvalidValueError(
                f"{where}: {DESCRIPTOR_NAME} needs version {self.min_version or self.version} of the form, "
                f"this program reads {_SUPPORTED[0]}.{_SUPPORTED[1]}: upgrade it"
            )
        try:
            return self.with_layers()
        except InvalidValueError as error:
            raise InvalidValueError(f"{where}: {DESCRIPTOR_NAME}: {error}") from None

    def encode(self) -> bytes:
        """Write the published form: two spaces of indentation, fields in order, absent ones left out, a final LF."""
        document: dict[str, Any] = self.model_dump(mode="json")
        for name in ("min_version", "origin", "comment"):
            if document[name] is None:
                del document[name]
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()

    def with_layers(self, *added: ThinLayer) -> Self:
        """Return the descriptor with further layers on top, everything else as it is.

        Raises
        ------
        InvalidValueError
            It would have more layers than an overlay can stack.
        """
        layers = (*self.layers, *added)
        if len(layers) > LAYER_LIMIT:
            raise InvalidValueError(
                f"a thin image cannot have {len(layers)} layers, the kernel stacks {LAYER_LIMIT}: make a flat one of it"
            )
        return self.model_copy(update={"layers": layers})
