"""Whether the credentials for thin images are those of the user whom a wish list names.

DUCC's lists name the user and never the password, which was a variable of the environment there. Here user and password
come together, so that the list's user decides nothing; but where it is another one, somebody has the wrong credentials.
"""

from collections.abc import Iterable

from services.common.errors import InvalidValueError
from services.converter.model import ThinTarget, Wish
from services.converter.wishlist.output_names import output_name
from services.converter.wishlist.problems import Problem, Severity
from services.converter.wishlist.selection import exact_name, image_name
from services.registry.credentials import CredentialStore
from services.registry.errors import CredentialsError
from services.registry.reference import ImageReference

__all__ = ["other_pushers"]

_ANY_TAG = "any"


async def other_pushers(wishes: Iterable[Wish], credentials: CredentialStore) -> list[Problem]:
    """Warn of credentials that are not those of the user who is to push thin images, once a list for each such user.

    Parameters
    ----------
    wishes
        Those of all lists.
    credentials
        What the converter pushes with.
    """
    found: dict[tuple[str, str], Problem] = {}
    # Credentials are for a repository at the narrowest, and thousands of wishes may push to a few.
    looked: set[tuple[str, str, str]] = set()
    for wish in wishes:
        for target in wish.thin:
            if target.user is None or (reference := _pushed_to(wish, target)) is None:
                continue
            place = (wish.origin.source, target.user, f"{reference.authority}/{reference.repository}")
            if place in looked:
                continue
            looked.add(place)
            text = await _trouble(reference, target.user, credentials)
            if text is not None:
                found.setdefault((wish.origin.source, text), Problem(wish.origin, Severity.WARNING, text))
    return list(found.values())


def _pushed_to(wish: Wish, target: ThinTarget) -> ImageReference | None:
    name, digest = exact_name(wish) or (image_name(wish, _ANY_TAG), None)
    try:
        return ImageReference.parse(output_name(target.template, wish, name, digest))
    except InvalidValueError:
        return None  # no thin image is made of this one, which is told elsewhere


async def _trouble(reference: ImageReference, user: str, credentials: CredentialStore) -> str | None:
    try:
        credential = await credentials.find(reference)
    except CredentialsError as error:
        return f"thin images cannot be pushed: {error}"
    # A token does not tell whose it is.
    if credential is None or not credential.username or credential.username == user:
        return None
    return (
        f"{user!r} is to push thin images, and the credentials for {reference.authority} in {credential.source} are of "
        f"{credential.username!r}: put those of {user!r} there, or name {credential.username!r} as 'user'"
    )
