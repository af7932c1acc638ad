"""The version of the journal's tables."""

from typing import Final

__all__ = ["VERSION"]

VERSION: Final = 10
"""The version that this publisher writes: the number of the last module in `migrations.versions`."""
