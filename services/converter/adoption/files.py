"""Reading files of a repository that somebody else has made: bounded, and only files."""

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

from services.converter.errors import AdoptionError

__all__ = ["names_in", "read_json"]

_PIECE: Final = 1 << 20


def read_json(file: Path, *, limit: int) -> Any:  # noqa: ANN401 - a JSON document
    """Read a JSON document; None where there is none.

    Parameters
    ----------
    limit
        Most bytes that are read of it.

    Raises
    ------
    AdoptionError
        It cannot be read, or is no such document; the text does not name it.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise AdoptionError(f"it cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise AdoptionError("it is no file")
        content = bytearray()
        try:
            while piece := opened.read(min(_PIECE, limit + 1 - len(content))):
                content += piece
        except OSError as error:
            raise AdoptionError(f"it cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise AdoptionError(f"it has more than {limit} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise AdoptionError("it is no JSON document") from None


def names_in(directory: Path) -> list[str]:
    """Return what is in a directory, in order; nothing where there is none.

    Raises
    ------
    AdoptionError
        It cannot be read.
    """
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise AdoptionError(f"{directory} cannot be read: {error.strerror}") from error
