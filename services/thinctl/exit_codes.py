"""Exit statuses."""

from typing import Final

from services.common.errors import InvalidValueError, SuiteError
from services.common.publisher_api import (
    NotKnownError,
    PublisherApiError,
    PublisherTimeoutError,
    PublisherTokenError,
)
from services.thinctl.errors import DisagreementError

__all__ = ["CODES", "EXIT_CODES"]

EXIT_CODES: Final = """\
\b
Exit status:
  0  done
  1  it failed for another reason than those below
  2  an argument or a setting is wrong
  3  the publisher does not answer, or cannot do it
  4  the token is missing or wrong
  5  the publisher has not heard of the layer or image
  6  it was not done within --timeout; the publisher goes on
  7  check: repository, journal and bucket disagree in a way that wants mending
  130, 143  interrupted by Ctrl-C or SIGTERM
"""

CODES: Final[tuple[tuple[type[SuiteError], int], ...]] = (
    (InvalidValueError, 2),
    (PublisherTokenError, 4),
    (NotKnownError, 5),
    (PublisherTimeoutError, 6),
    (PublisherApiError, 3),
    (DisagreementError, 7),
)
"""Exit statuses of the errors that a command can end with."""
