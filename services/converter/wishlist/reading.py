"""Reads a wish list, whichever format it is in."""

from pathlib import Path

from services.common.image_outputs import NO_OUTPUTS, ImageOutputs
from services.converter.model import Origin
from services.converter.wishlist.ducc import is_recipe, read_recipe
from services.converter.wishlist.format2 import read_version_2
from services.converter.wishlist.problems import Problem, Reading, Severity
from services.converter.wishlist.tree import Mapping, Scalar, TreeError, parse_tree

__all__ = ["read_wish_list"]


def read_wish_list(
    content: bytes, source: str, *, directory: Path | None = None, recipe_outputs: ImageOutputs = NO_OUTPUTS
) -> Reading:
    """Read a wish list; what is wrong in it is in the result, with its place.

    Parameters
    ----------
    content
        YAML in UTF-8, see `tree` for its bounds.
    source
        File or URL, for places.
    directory
        Where paths in it start; None where it may name no files.
    recipe_outputs
        In which further ways repositories show the images of DUCC's recipes, which do not say.
    """
    try:
        document = parse_tree(content, source)
    except TreeError as error:
        return _nothing(error.origin, error.text)
    if not isinstance(document, Mapping):
        return _nothing(document.origin, "a wish list is a mapping: begin with 'version:'")
    if is_recipe(document):
        return read_recipe(document, source, outputs=recipe_outputs)
    version, node = document.entries.get("version", (document.origin, document))
    if not isinstance(node, Scalar) or node.value != "2":
        return _nothing(version, "a wish list says 'version: 2' (or is one of DUCC's, of version 1)")
    return read_version_2(document, source, directory=directory)


def _nothing(origin: Origin, text: str) -> Reading:
    return Reading(None, (Problem(origin, Severity.ERROR, text),))
