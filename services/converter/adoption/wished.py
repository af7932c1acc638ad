"""Which images of a repository wish lists name."""

from collections.abc import Sequence

from services.common.image_name import ImageName
from services.converter.model import ChosenTags, Wish
from services.converter.wishlist.selection import candidates, exact_name

__all__ = ["is_wished"]


def is_wished(name: ImageName, wishes: Sequence[Wish]) -> bool:
    """Tell whether a wish names an image, by what can be told of its tag without a registry.

    Parameters
    ----------
    name
        The image.
    wishes
        Those of all lists.
    """
    return any(_names(wish, name) for wish in wishes)


def _names(wish: Wish, name: ImageName) -> bool:
    exact = exact_name(wish)
    if exact is not None:
        return exact[0] == name
    if (wish.registry, wish.repository) != (name.registry, name.repository) or name.tag is None:
        return False
    return isinstance(wish.tags, ChosenTags) and bool(candidates(wish.tags, [name.tag]))
