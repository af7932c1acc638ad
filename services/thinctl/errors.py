"""Errors of `thinctl` itself."""

from services.common.errors import SuiteError

__all__ = ["DisagreementError"]


class DisagreementError(SuiteError):
    """A check has found something that wants mending."""
