"""What of a tree no publisher takes, found out before its archive is on its way."""

import os
from typing import Final

from services.common.archive.errors import ArchiveLimitError, UnsupportedTreeError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.notes import show
from services.common.archive.paths import is_mistaken_for_whiteout, mistaken_for_whiteout

__all__ = ["check_publishable"]

_NAME_MAX: Final = 255


def check_publishable(path: bytes, limits: ArchiveLimits) -> None:
    """Refuse the path of an archive's entry where a publisher would.

    Raises
    ------
    ArchiveLimitError
        It is too long or too deep.
    UnsupportedTreeError
        CVMFS would take it for something else.
    """
    if path.count(b"/") >= limits.path_depth:
        raise ArchiveLimitError(f"{show(path)} is deeper than {limits.path_depth} directories (limit path_depth)")
    if len(path) > limits.path_length:
        raise ArchiveLimitError(f"{show(path)} is longer than {limits.path_length} bytes (limit path_length)")
    name = os.path.basename(path)
    if is_mistaken_for_whiteout(name):
        raise UnsupportedTreeError(f"{show(path)} cannot be published: {mistaken_for_whiteout(name)}")
    if len(name) > _NAME_MAX:
        # Names themselves are never that long, but the marks of their deletion can be.
        raise ArchiveLimitError(f"{show(path)} is the mark of a deletion, and longer than a name can be")
