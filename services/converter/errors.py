"""What can go wrong in the converter.

Tree::

    ConverterError
    ├── WishListError             a wish list has errors, or cannot be read
    ├── RoundFailedError          not everything is as the wish lists say
    └── WishListSourceError       files, directories and URLs of wish lists
        └── SourceUnreachableError    the last good version goes on to count, where there is one
"""

from services.common.errors import SuiteError

__all__ = ["ConverterError", "RoundFailedError", "SourceUnreachableError", "WishListError", "WishListSourceError"]


class ConverterError(SuiteError):
    """The converter failed."""


class RoundFailedError(ConverterError):
    """A round came to its end, and not everything is as the wish lists say."""


class WishListError(ConverterError):
    """A wish list has errors; they are told one by one, with their places."""


class WishListSourceError(ConverterError):
    """What a source of wish lists is, or where it keeps its last good versions, is wrong."""


class SourceUnreachableError(WishListSourceError):
    """A wish list could not be read for the time being."""
