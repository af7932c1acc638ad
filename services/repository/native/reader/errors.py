"""What only a reader can find; the rest are `native.errors`.

Tree::

    BrokenRepositoryError
    └── UntrustedError      a signature, certificate or whitelist does not hold
"""

from services.repository.native.errors import BrokenRepositoryError

__all__ = ["UntrustedError"]


class UntrustedError(BrokenRepositoryError):
    """A signature, certificate or whitelist does not hold, so clients refuse the repository."""
