"""Permissions that a flat image needs to be of use to whoever runs it.

Apptainer reads it as another user than the one whom the archive's owners mean, and so did those who made such trees
before: DUCC, like Apptainer itself, lets the owner read all files, and enter and change all directories. Layers stay as
they are.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["Modes"]

_EXECUTABLE: Final = 0o111


@dataclass(frozen=True, slots=True)
class Modes:
    """How permissions are mended: `u+rwX` for directories and `u+r` for files; the type of a mode stays as it is."""

    others_read: bool
    """Whether everybody may read everything: `o+rX`. Secrets in an image are then public."""

    def of_directory(self, mode: int) -> int:
        """Return the mode of a directory."""
        return mode | (0o705 if self.others_read else 0o700)

    def of_file(self, mode: int) -> int:
        """Return the mode of a regular file."""
        if not self.others_read:
            return mode | 0o400
        return mode | (0o405 if mode & _EXECUTABLE else 0o404)
