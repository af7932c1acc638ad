"""Reads a wish list, whichever format it is in."""

from services.converter.model import Origin
from services.converter.wishlist.ducc import is_recipe, read_recipe
from services.converter.wishlist.problems import Problem, Reading, Severity
from services.converter.wishlist.tree import Mapping, TreeError, parse_tree

__all__ = ["read_wish_list"]


def read_wish_list(content: bytes, source: str) -> Reading:
    """Read a wish list; what is wrong in it is in the result, with its place.

    Parameters
    ----------
    content
        YAML in UTF-8, see `tree` for its bounds.
    source
        File or URL, for places.
    """
    try:
        document = parse_tree(content, source)
    except TreeError as error:
        return _nothing(error.origin, error.text)
    if not isinstance(document, Mapping):
        return _nothing(document.origin, "a wish list is a mapping: begin with 'version:'")
    if is_recipe(document):
        return read_recipe(document, source)
    return _nothing(document.origin, "no version of wish lists that is known")


def _nothing(origin: Origin, text: str) -> Reading:
    return Reading(None, (Problem(origin, Severity.ERROR, text),))
