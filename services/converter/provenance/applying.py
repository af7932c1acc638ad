"""Which signature policies apply to an image."""

from collections.abc import Iterable, Iterator

from services.common.image_name import ImageName
from services.converter.model import SignaturePolicy, Wish
from services.converter.wishlist.globs import matches_any
from services.registry.reference import HUB_NAMES

__all__ = ["applicable"]


def applicable(
    name: ImageName, wishes: Iterable[Wish], policies: Iterable[SignaturePolicy]
) -> tuple[SignaturePolicy, ...]:
    """Return the policies that apply to an image, all of which must be satisfied.

    Parameters
    ----------
    name
        The image.
    wishes
        All wishes for it: what any of them names applies.
    policies
        Those of all lists: what has a pattern that matches applies, whatever name of the registry the wish has.
    """
    names = tuple(_names(name))

    def matches(patterns: tuple[str, ...]) -> bool:
        return any(matches_any(patterns, each) for each in names)

    named = [policy for wish in wishes for policy in wish.policies]
    matching = [policy for policy in policies if matches(policy.patterns) and not matches(policy.exceptions)]
    return tuple(dict.fromkeys((*named, *matching)))


def _names(name: ImageName) -> Iterator[str]:
    """Give what an image may be called: a policy must not depend on how a wish writes a registry."""
    version = f"@{name.version}" if name.tag is None else f":{name.tag}"
    yield name
    yield f"{name.registry.lower()}/{name.repository}{version}"
    if name.registry.lower() in HUB_NAMES:
        repository = name.repository if "/" in name.repository else f"library/{name.repository}"
        for registry in HUB_NAMES:
            yield f"{registry}/{repository}{version}"
