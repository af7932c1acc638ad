"""What the converter's parts tell each other: wishes, and hints that something may have changed.

A wish list is read by `services.converter.wishlist`, which checks everything in it; whoever gets these types need check
nothing again. Durations are in seconds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from services.common.digest import Digest
from services.common.image_outputs import NO_OUTPUTS, ImageOutputs
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.registry.platform import Platform

__all__ = [
    "DAY",
    "DEFAULT_PLATFORMS",
    "DEFAULT_RETENTION",
    "ChosenTags",
    "ExactDigest",
    "ExactTag",
    "Hint",
    "Origin",
    "Retention",
    "SignaturePolicy",
    "TagSelection",
    "ThinTarget",
    "VerificationKey",
    "Wish",
    "WishList",
]

_SIGNATURES: Final = re.compile(r"sha256-([0-9a-f]{64})(?:\.sig)?")
"""Tags of cosign's signatures, and of the list of what refers to an image where a registry keeps none (OCI 1.1)."""

DAY: Final = 86400.0
"""A day, in seconds."""


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where something was written; its text is the form that editors jump to."""

    source: str
    """File, or URL, of the wish list."""
    line: int
    """Line, from 1."""
    column: int
    """Column, from 1."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class ExactTag:
    """One tag."""

    tag: str


@dataclass(frozen=True, slots=True)
class ExactDigest:
    """One digest, which nothing moves: such an image is never looked for again once it is published."""

    digest: Digest
    tag: str | None = None
    """Tag that was written beside it, for people; the digest wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenTags:
    """Those of a repository's tags that pass all that is given, in this order."""

    include: tuple[str, ...] = ("*",)
    """Globs, of which one must match: `*`, `?`, `[abc]`, `[!abc]`; everything else stands for itself."""
    exclude: tuple[str, ...] = ()
    """Globs, of which none may match."""
    versions: str | None = None
    """Range of versions in npm's notation, such as `>=1.2 <3`; tags that are no versions do not pass."""
    max_age: float | None = None
    """Greatest age of the image, from its configuration's `created`."""
    newest: int | None = None
    """How many of what is left: the highest ones."""
    newest_by: Literal["version", "created"] = "version"
    """What the highest ones are found by."""


TagSelection = ExactTag | ExactDigest | ChosenTags


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what is no longer wished stays; None is for ever."""

    replaced: float | None
    """A version whose tag has moved on, from then on."""
    dropped: float | None
    """An image that no wish list wishes any more, from when that was noticed first."""
    gone: float | None
    """An image that its registry definitely has no more, from when that was noticed first."""


DEFAULT_RETENTION: Final = Retention(replaced=14 * DAY, dropped=None, gone=None)
"""Jobs may run for days on what a tag named when they started; nothing is removed that nobody has asked to be."""

DEFAULT_PLATFORMS: Final = (Platform("linux", "amd64"),)
"""What most nodes of grid sites are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinTarget:
    """A thin image to be made and pushed."""

    template: str
    """Where to: a reference with `$(registry)`, `$(repository)`, `$(tag)` and so on, see `wishlist.output_name`."""
    repository: RepositoryName
    """CVMFS repository that its descriptor names."""
    layout: LayerLayout
    """Paths in its descriptor."""
    user: str | None = None
    """Who pushes, where the wish list says so; the password is never there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key that signatures are verified with."""

    name: str
    """How reports call it."""
    pem: bytes
    """The key, PEM (`SubjectPublicKeyInfo`), not looked into yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignaturePolicy:
    """Which images must be signed, and by whom.

    Every policy that applies to an image must be satisfied, so that none weakens another.
    """

    name: str
    patterns: tuple[str, ...]
    """Globs on names of images such as `quay.io/ns/*`; empty where it applies to the wishes that name it alone."""
    exceptions: tuple[str, ...] = ()
    """Globs on names of images that it does not apply to all the same."""
    keys: tuple[VerificationKey, ...]
    """Any one of these suffices; never empty."""
    identities: tuple[str, ...] = ()
    """Globs on what the signature may say it is for (`docker-reference`); empty: the image's own repository alone."""
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Images of one repository of a registry that CVMFS repositories should have."""

    registry: str
    """Registry as it is written, with its port; part of the images' names."""
    repository: str
    """Path in the registry."""
    tags: TagSelection
    repositories: tuple[RepositoryName, ...]
    """CVMFS repositories; at least one."""
    platforms: tuple[Platform, ...] = DEFAULT_PLATFORMS
    """The first is the one that the plain name stands for."""
    thin: tuple[ThinTarget, ...] = ()
    outputs: ImageOutputs = NO_OUTPUTS
    """In which further ways the CVMFS repositories show the images."""
    policies: tuple[SignaturePolicy, ...] = ()
    """Those that the wish names, which apply besides those whose patterns match."""
    retention: Retention = DEFAULT_RETENTION
    interval: float | None = None
    """How often the registry is asked; None for the converter's setting."""
    priority: int = 0
    """Higher ones come first, also where two wishes name one image."""
    may_fail: bool = False
    """Whether a failure leaves a run successful (`ignoreErrors` of DUCC)."""
    scheme: Literal["https", "http"] = "https"
    """What was written before the registry; how it is spoken to is the settings' to say."""
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class WishList:
    """What one wish list wishes."""

    source: str
    """File or URL."""
    wishes: Sequence[Wish] = field(default=())
    """In the list's order."""
    policies: tuple[SignaturePolicy, ...] = ()
    """All that it defines: their patterns apply to the images of every list."""
    complete: bool = True
    """False where something in it could not be read: then nothing follows from what is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """Somebody says that something may have changed; nothing but a question to the registry follows from it."""

    registry: str
    """Registry as the sender calls it, or as the sender's own configuration says."""
    repository: str
    tag: str | None
    """None: any tag."""

    @property
    def signed(self) -> Digest | None:
        """The digest of the image that somebody has signed, where the tag is one that signatures are found by."""
        match = None if self.tag is None else _SIGNATURES.fullmatch(self.tag)
        return None if match is None else Digest(match[1])
