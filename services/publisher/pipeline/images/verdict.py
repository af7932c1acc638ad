"""What a failure means for an image: refused for good, or tried again, and how soon.

An image is refused that would be the same the next time: its archives, its digests, its form. A registry that does not
answer, or does not let the publisher in, may do so later; each further attempt costs it a request. One that says that
it does not have the image may have it in a moment, since notifications may come before the push has ended.
"""

import math
from dataclasses import dataclass
from typing import Final

from services.publisher.journal.image_model import ImageRecord
from services.registry.errors import (
    AccessDeniedError,
    AuthenticationError,
    DigestMismatchError,
    ImageMissingError,
    RegistryError,
    RegistryUnavailableError,
    UnsupportedImageError,
)
from services.repository.errors import ImageRefusedError, LayerRefusedError, RepositoryError

__all__ = ["Verdict", "judge", "text_of"]

_MISSING_ATTEMPTS: Final = 5
"""Attempts after which an image that its registry does not have is refused; half a minute with the usual pauses."""
_LONGEST_WAIT: Final = 3600
"""Most seconds that a registry may ask to wait."""
_REASON_LENGTH: Final = 4000

_KINDS: Final = {
    DigestMismatchError: "digest",
    UnsupportedImageError: "unsupported",
    ImageMissingError: "missing",
    AuthenticationError: "denied",
    AccessDeniedError: "denied",
    RegistryUnavailableError: "unavailable",
    RegistryError: "registry",
    ImageRefusedError: "output",
    RepositoryError: "repository",
    OSError: "spool",
}
"""Words for failures, the narrower ones first."""
_FINAL: Final = frozenset({"digest", "unsupported", "output"})
"""Those that would be the same the next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from a failure."""

    kind: str
    """One word for the metrics."""
    reason: str
    final: bool = False
    """Whether it is not tried again by itself."""
    pause: float = 0
    """Least seconds until it is tried again."""


def judge(record: ImageRecord, error: Exception) -> Verdict:
    """Say what follows from a failure of an image that is no other's."""
    reason = text_of(error)
    if isinstance(error, LayerRefusedError):
        return Verdict(kind=error.kind, reason=reason, final=True)
    for failure, kind in _KINDS.items():
        if isinstance(error, failure):
            missing = kind == "missing" and record.attempts + 1 >= _MISSING_ATTEMPTS
            return Verdict(kind=kind, reason=reason, final=missing or kind in _FINAL, pause=_pause(error))
    # A defect of the publisher must not stop it: the other images may be fine.
    return Verdict(kind="unexpected", reason=f"unexpected: {type(error).__name__}: {reason}")


def _pause(error: Exception) -> float:
    """Return how long a registry asks to wait, in seconds."""
    wait = error.retry_after if isinstance(error, RegistryUnavailableError) else None
    return min(wait, _LONGEST_WAIT) if wait is not None and math.isfinite(wait) else 0


def text_of(error: Exception) -> str:
    """Say what an error says, in a bounded text."""
    return (str(error) or type(error).__name__)[:_REASON_LENGTH]
