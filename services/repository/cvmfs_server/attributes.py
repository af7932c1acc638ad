"""Whether a repository keeps extended attributes, which its settings decide at every publish."""

import errno
import os

import structlog

from services.repository.cvmfs_server.opener import MARKER_XATTR
from services.repository.cvmfs_server.place import Place
from services.repository.cvmfs_server.transaction import MARKER

__all__ = ["AttributeKeeping"]

_log = structlog.get_logger(__name__)


class AttributeKeeping:
    """What is known of whether one repository keeps extended attributes.

    Parameters
    ----------
    place
        Where it is.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kept = True
        """Whether what was published last kept them."""

    def keeps(self) -> bool:
        """Tell whether a publish would keep them now; where that is not said, the last one shows it; blocking."""
        said = self._place.configuration().keeps_xattrs
        return self._kept if said is None else said

    def look(self) -> None:
        """Find out by what was published last; blocking."""
        try:
            os.getxattr(self._place.published / MARKER, MARKER_XATTR)
        except OSError as error:
            if error.errno != errno.ENODATA:
                return
            if self._kept:
                _log.warning(
                    "the repository drops extended attributes, file capabilities among them",
                    hint="set CVMFS_INCLUDE_XATTRS=true in its server.conf",
                )
            self._kept = False
        else:
            self._kept = True
