"""What a delivery says, whatever its dialect."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.converter.model import Hint

__all__ = ["Delivery", "Event", "Reading", "Recorded", "identity_of", "name_of", "read_hint"]

_IDENTITY = re.compile(r"[!-~]{1,200}")

_ARTEFACT = re.compile(r"sha256-[0-9a-f]{64}(?:\..*)?")
"""Tags that are no images: cosign's signatures, attestations and bills of material (`.sig`, `.att`, `.sbom`), and the
OCI distribution specification's own where a registry has no API for referrers."""

_ANY_TAG: Final = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One request of a registry, after its sender has been authenticated."""

    document: Mapping[str, Any]
    """The body, a JSON object; nothing in it has been looked at."""
    registry: str
    """The registry as the endpoint's configuration names it; what a body says of it does not count."""
    headers: Mapping[str, str]
    """The request's headers."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something of interest."""

    hint: Hint
    identity: str | None = None
    """What the sender tells deliveries of the same event by; None where it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is in a delivery."""

    events: tuple[Event, ...] = ()
    ignored: int = 0
    """Events that are of no interest: pulls, blobs, bills of material and whatever else registries tell of."""
    malformed: int = field(default=0)
    """Events that are not of their form, or name what no registry can hold."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of the events of a delivery."""

    taken: int
    """Those that there is something to look into for."""
    repeated: int
    """Those that had been delivered before."""


def read_hint(registry: str, repository: str, tag: str | None) -> Hint | None:
    """Return the hint about a repository's tag, or all of its tags; nothing for tags of what is no image nor signs one.

    Raises
    ------
    InvalidValueError
        These are no names of a registry, a repository and a tag.
    """
    name = ImageName(f"{registry}/{repository}:{_ANY_TAG if tag is None else tag}")
    # What reads as something else when it is joined is none of the three.
    if (name.registry, name.repository, name.version) != (registry, repository, _ANY_TAG if tag is None else tag):
        raise InvalidValueError(f"not a repository and a tag: {repository[:80]!r}, {tag and tag[:80]!r}")
    hint = Hint(registry=name.registry, repository=name.repository, tag=tag)
    return None if tag is not None and _ARTEFACT.fullmatch(tag) and hint.signed is None else hint


def name_of(hint: Hint) -> str:
    """Write a hint as a name, for globs and for people; without a tag where it is about all of them."""
    return f"{hint.registry}/{hint.repository}" + ("" if hint.tag is None else f":{hint.tag}")


def identity_of(value: object) -> str | None:
    """Return what identifies a delivery, where it is of a form that can be kept."""
    return value if isinstance(value, str) and _IDENTITY.fullmatch(value) else None
