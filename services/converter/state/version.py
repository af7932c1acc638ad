"""The version of the state's tables."""

from typing import Final

__all__ = ["VERSION"]

VERSION: Final = 3
"""The version that this converter writes: the number of the last module in `migrations.versions`."""
