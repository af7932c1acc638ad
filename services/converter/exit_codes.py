"""Exit statuses."""

from typing import Final

from services.common.errors import InvalidValueError, SuiteError
from services.common.publisher_api import PublisherApiError
from services.converter.errors import RoundFailedError, TakeOverError, WishListError, WishListSourceError
from services.converter.provenance.errors import ProvenanceError, ProvenanceUnknownError
from services.registry.errors import RegistryError

__all__ = ["CODES", "EXIT_CODES"]

EXIT_CODES: Final = """\
\b
Exit status:
  0  done
  1  a wish list has errors, or something failed for another reason than those below
  2  an argument or a setting is wrong
  3  a registry failed or refused
  4  a wish list cannot be read
  5  a publisher failed or refused
  6  once: not everything is as the wish lists say, the log says why; adopt: some images could not be published
  7  verify: the image is not signed as a policy wants it
  130, 143  interrupted by Ctrl-C or SIGTERM
"""

CODES: Final[tuple[tuple[type[SuiteError], int], ...]] = (
    (InvalidValueError, 2),
    (RoundFailedError, 6),
    (TakeOverError, 6),
    (WishListError, 1),
    (RegistryError, 3),
    (ProvenanceUnknownError, 3),
    (ProvenanceError, 7),
    (WishListSourceError, 4),
    (PublisherApiError, 5),
)
"""Exit statuses of the errors that a command can end with."""
