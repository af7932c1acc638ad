"""Counts what the statistics of a catalog must say."""

from typing import Final

from services.repository.native.reader.catalog import Catalog
from services.repository.native.records import COUNTER_NAMES

__all__ = ["count"]

_REG: Final = "mode & 61440 = 32768"


def _number(condition: str) -> str:
    return f"count(CASE WHEN {condition} THEN 1 END)"


def _sum(condition: str) -> str:
    return f"ifnull(sum(CASE WHEN {condition} THEN size END), 0)"


_VALUES: Final = {
    "regular": _number(_REG),
    "symlink": _number("mode & 61440 = 40960"),
    "special": _number("mode & 61440 IN (4096, 8192, 24576, 49152)"),
    "dir": _number("mode & 61440 = 16384"),
    "nested": "(SELECT count(*) FROM nested_catalogs)",
    "chunked": _number(f"{_REG} AND flags & 64"),
    "chunks": "(SELECT count(*) FROM chunks)",
    "file_size": _sum(_REG),
    "chunked_size": _sum(f"{_REG} AND flags & 64"),
    "xattr": "count(xattr)",
    "external": _number(f"{_REG} AND flags & 128"),
    "external_file_size": _sum(f"{_REG} AND flags & 128"),
}
_QUERY: Final = f"SELECT {', '.join(_VALUES[name] for name in COUNTER_NAMES)} FROM entry"  # noqa: S608 - no input


def count(catalog: Catalog) -> dict[str, int]:
    """Return what the `self_` counters of a catalog must be, by their names without that prefix.

    Raises
    ------
    BrokenRepositoryError
        The catalog cannot be read.
    """
    (row,) = catalog.judge(_QUERY, {})
    return dict(zip(COUNTER_NAMES, row, strict=True))
