"""Catalogs that have grown get others below them, so that what a publish writes anew stays small."""

from services.repository.native.writer.open_catalogs import OpenCatalogs
from services.repository.native.writer.splitting import entries, has_nested, weights

__all__ = ["give_catalog", "split_grown"]


def give_catalog(catalogs: OpenCatalogs, path: bytes, *, worth: int) -> None:
    """Give a directory that is in the catalog of the one above it a catalog of its own, where that is worth it.

    Parameters
    ----------
    worth
        Fewest entries that get a catalog of their own.
    """
    above, _, name = path.rpartition(b"/")
    catalog = catalogs.above(path).catalog
    # Of a directory that has a catalog nothing is found here.
    if weights(catalog, above).get(name, 0) >= worth and not has_nested(catalog, path):
        catalogs.split(path)


def split_grown(catalogs: OpenCatalogs, top: bytes, *, largest: int, worth: int) -> None:
    """Split the catalogs at and below a directory that have grown too large, where they are heaviest.

    Parameters
    ----------
    largest
        Entries that a catalog should have at most.
    worth
        As for `give_catalog`.
    """
    waiting = [path for path in catalogs.opened() if path == top or path.startswith(top + b"/")]
    while waiting:
        path = waiting.pop()
        catalog = catalogs.at(path).catalog
        if entries(catalog) <= largest:
            continue
        for name, weight in sorted(weights(catalog, path).items(), key=lambda found: (-found[1], found[0])):
            place = path + b"/" + name
            if weight < worth or entries(catalog) <= largest:
                break
            if not has_nested(catalog, place):
                catalogs.split(place)
                waiting.append(place)
