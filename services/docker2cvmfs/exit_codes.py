"""Exit statuses."""

from typing import Final

from services.common.errors import InvalidValueError, SuiteError
from services.common.object_store.errors import ObjectStoreError
from services.common.publisher_api import PublisherApiError
from services.docker2cvmfs.errors import EngineError, OutputError
from services.registry.errors import RegistryError

__all__ = ["CODES", "EXIT_CODES"]

_USAGE: Final = 2

EXIT_CODES: Final = """\
\b
Exit status:
  0  done
  1  it failed for another reason than those below
  2  an argument or a setting is wrong
  3  the registry failed or refused, or the image cannot be converted
  4  the object store failed or refused
  5  the publisher failed, refused a layer, or was not done in time
  6  the Docker engine did not take the image, or a file could not be written
  130, 143  interrupted by Ctrl-C or SIGTERM
"""

CODES: Final[tuple[tuple[type[SuiteError], int], ...]] = (
    (InvalidValueError, _USAGE),
    (RegistryError, 3),
    (ObjectStoreError, 4),
    (PublisherApiError, 5),
    (EngineError, 6),
    (OutputError, 6),
)
"""Exit statuses of the errors that a command can end with."""
