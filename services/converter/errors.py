"""What can go wrong in the converter.

Tree::

    ConverterError
    ├── AdoptionError             a repository that is to be taken over cannot be read
    ├── TakeOverError             not all images of it could be published
    ├── WishListError             a wish list has errors, or cannot be read
    ├── RoundFailedError          not everything is as the wish lists say
    ├── StateError                what is remembered cannot be read or written, or another converter has its turn
    └── WishListSourceError       files, directories and URLs of wish lists
        └── SourceUnreachableError    the last good version goes on to count, where there is one
"""

from services.common.errors import SuiteError

__all__ = [
    "AdoptionError",
    "ConverterError",
    "RoundFailedError",
    "SourceUnreachableError",
    "StateError",
    "TakeOverError",
    "WishListError",
    "WishListSourceError",
]


class ConverterError(SuiteError):
    """The converter failed."""


class AdoptionError(ConverterError):
    """A repository that is to be taken over, or a part of it, cannot be read."""


class TakeOverError(ConverterError):
    """Not all images of a repository could be published anew."""


class RoundFailedError(ConverterError):
    """A round came to its end, and not everything is as the wish lists say."""


class StateError(ConverterError):
    """What is remembered cannot be read or written, or another converter has its turn."""


class WishListError(ConverterError):
    """A wish list has errors; they are told one by one, with their places."""


class WishListSourceError(ConverterError):
    """What a source of wish lists is, or where it keeps its last good versions, is wrong."""


class SourceUnreachableError(WishListSourceError):
    """A wish list could not be read for the time being."""
