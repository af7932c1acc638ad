"""Names of CVMFS repositories."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator

from services.common.errors import InvalidValueError

__all__ = ["RepositoryName", "RepositoryNameField"]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_MAX_LENGTH = 60
"""Longest name that CVMFS accepts, in characters (its `cvmfs_server mkfs` refuses longer ones)."""


class RepositoryName(str):
    """A fully qualified repository name such as `test.cern.ch`: `[a-z0-9.-]`, no empty label, no leading dot or dash.

    It is used as a directory name and as an argument of programs, hence the narrow form.

    Raises
    ------
    InvalidValueError
        The value is anything else.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Check the form once, at the boundary."""
        if len(value) > _MAX_LENGTH or not _NAME.fullmatch(value):
            raise InvalidValueError(
                f"not a repository name ([a-z0-9.-], at most {_MAX_LENGTH} characters): {value[:80]!r}"
            )
        return super().__new__(cls, value)


RepositoryNameField = Annotated[str, AfterValidator(RepositoryName)]
"""A pydantic field that holds a `RepositoryName`."""
