"""Errors of the set-up."""

from services.common.errors import SuiteError

__all__ = ["SetupError"]


class SetupError(SuiteError):
    """The store cannot be set up; the text says what failed, and what to do."""
