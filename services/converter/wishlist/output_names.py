"""Names of thin images, made of the original's by DUCC's templates, such as `https://registry/sync/$(image)`."""

import re
from collections.abc import Callable
from typing import Final

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.converter.model import Wish
from services.converter.wishlist.names import WishedName
from services.converter.wishlist.problems import nearest

__all__ = ["DEFAULT_TEMPLATE", "check_template", "output_name"]

DEFAULT_TEMPLATE: Final = "$(scheme)://$(registry)/$(repository)_thin:$(tag)"
"""DUCC's, where the list has none."""

_LIMIT: Final = 1024
_TIMES: Final = 5
"""How often each variable is replaced; what is left would stay as it is, which no registry takes."""
_VARIABLE = re.compile(r"\$\(([^)]*)\)")


def _reference(tag: str | None, digest: Digest | None) -> str:
    return ("" if tag is None else f":{tag}") + ("" if digest is None else f"@{digest.oci}")


_VALUES: Final[dict[str, Callable[[str, str, str, str | None, Digest | None], str]]] = {
    "scheme": lambda scheme, _registry, _repository, _tag, _digest: scheme,
    "registry": lambda _scheme, registry, _repository, _tag, _digest: registry,
    "repository": lambda _scheme, _registry, repository, _tag, _digest: repository,
    "digest": lambda _scheme, _registry, _repository, _tag, digest: "" if digest is None else digest.oci,
    "tag": lambda _scheme, _registry, _repository, tag, _digest: tag or "",
    "reference": lambda _scheme, _registry, _repository, tag, digest: _reference(tag, digest),
    "image": lambda _scheme, _registry, repository, tag, digest: repository + _reference(tag, digest),
}
"""The variables: `reference` is `:TAG`, `@DIGEST` or both, `image` the repository with it (as DUCC's code has it)."""


def check_template(template: str) -> None:
    """See that a template makes names of images that have tags.

    Raises
    ------
    InvalidValueError
        A variable is unknown or there too often, or what it makes is no name.
    """
    if not template or len(template) > _LIMIT:
        raise InvalidValueError(f"a template has 1 to {_LIMIT} characters: {template[:80]!r}")
    names = _VARIABLE.findall(template)
    for name in dict.fromkeys(names):
        if name not in _VALUES:
            raise InvalidValueError(f"no such variable: $({name[:80]}): {nearest(name, _VALUES)}")
        if names.count(name) > _TIMES:
            raise InvalidValueError(f"$({name}) more than {_TIMES} times: DUCC replaces no more")
    _tagged(_replaced(template, "https", "registry.example.org", "ns/name", "v1", None), template)


def _replaced(
    template: str, scheme: str, registry: str, repository: str, tag: str | None, digest: Digest | None
) -> str:
    for name, value in _VALUES.items():
        template = template.replace(f"$({name})", value(scheme, registry, repository, tag, digest), _TIMES)
    return template


def output_name(template: str, wish: Wish, name: ImageName, digest: Digest | None) -> str:
    """Return the name of the thin image of one image: `REGISTRY/REPOSITORY:TAG`.

    Parameters
    ----------
    template
        As a `ThinTarget` has it.
    wish
        The wish that the image is of.
    name
        The image.
    digest
        Its digest, where the wish names one.

    Raises
    ------
    InvalidValueError
        What comes out is no name with a tag, since the original has no tag, say.
    """
    made = _replaced(template, wish.scheme, name.registry, name.repository, name.tag, digest)
    return _tagged(made, template)


def _tagged(made: str, template: str) -> str:
    try:
        name = WishedName.parse(made)
        name.check_tag()
    except InvalidValueError as error:
        raise InvalidValueError(f"the template {template!r} makes no name of an image: {error}") from None
    if name.tag is None:
        # The digest of a thin image follows from it, so that no digest can be where it is pushed.
        raise InvalidValueError(f"the template {template!r} makes a name without tag: {made[:300]!r}")
    return f"{name.registry}/{name.repository}:{name.tag}"
