"""What a round would do about planned images, by what registries and publishers say now. Nothing is asked to change."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.image_outputs import outputs_document
from services.common.publisher_api import PublisherApiError
from services.common.publisher_api.image_model import FOLLOWED, ImageAnswer
from services.common.repository_name import RepositoryName
from services.converter.commands.planned import Plan
from services.converter.rounds.side_by_side import side_by_side
from services.converter.wishlist.selection import Wanted
from services.registry.errors import ImageMissingError, RegistryError

__all__ = ["Action", "Digests", "Key", "Outlook", "PublishedImages", "look_ahead"]

Key = tuple[RepositoryName, ImageName]
"""What an image of a repository is known by."""


class Action(StrEnum):
    """What would be done."""

    PUBLISH = "publish"
    REPLACE = "replace"
    NOTHING = "nothing"
    WAIT = "wait"
    UNKNOWN = "cannot tell"
    GONE = "gone"
    UNWISHED = "not wished"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would be done about an image, and why."""

    action: Action
    reason: str


class Digests(Protocol):
    """What registries are asked."""

    async def digest(self, name: ImageName) -> Digest:
        """Return the digest that a tag stands for now.

        Raises
        ------
        ImageMissingError
            There is no such image.
        RegistryError
            The registry failed or refused.
        """


class PublishedImages(Protocol):
    """What a publisher is asked."""

    def every(self, query: Sequence[tuple[str, str]] = ()) -> AsyncGenerator[ImageAnswer, None]:
        """Return all images; raises `PublisherApiError`."""


async def look_ahead(
    plan: Plan, digests: Digests, publishers: Mapping[RepositoryName, PublishedImages], *, whole: bool
) -> dict[Key, Outlook]:
    """Say what would be done about every image of a plan, and about those that no list wishes.

    Parameters
    ----------
    plan
        The images.
    digests
        Tells what tags stand for.
    publishers
        Those of the repositories that are known.
    whole
        Whether the lists were read without errors: only then something is not wished.
    """
    there: dict[RepositoryName, dict[ImageName, ImageAnswer] | str] = {}
    for repository, publisher in publishers.items():
        there[repository] = await _images(publisher)
    found: dict[Key, Outlook] = {}
    heads: dict[ImageName, Digest | Outlook] = {}

    async def ask(wanted: Wanted) -> None:
        if wanted.name not in heads:
            heads[wanted.name] = await _head(wanted, digests)

    # One question a name, in however many repositories it is wanted.
    await side_by_side({wanted.name: wanted for wanted in plan.wanted}.values(), ask)
    for wanted in plan.wanted:
        found[wanted.repository, wanted.name] = _outlook(heads[wanted.name], there.get(wanted.repository), wanted)
    if whole and not plan.open:
        found |= _unwished(plan, there)
    return found


async def _images(publisher: PublishedImages) -> dict[ImageName, ImageAnswer] | str:
    try:
        async with aclosing(publisher.every()) as images:
            return {ImageName(image.name): image async for image in images}
    except PublisherApiError as error:
        return str(error)


async def _head(wanted: Wanted, digests: Digests) -> Digest | Outlook:
    if wanted.digest is not None:
        return wanted.digest
    try:
        return await digests.digest(wanted.name)
    except ImageMissingError as error:
        return Outlook(Action.GONE, f"{error}; what is published stays as its retention says")
    except RegistryError as error:
        return Outlook(Action.UNKNOWN, str(error))


def _outlook(head: Digest | Outlook, there: Mapping[ImageName, ImageAnswer] | str | None, wanted: Wanted) -> Outlook:
    if isinstance(head, Outlook):
        return head
    if there is None:
        return Outlook(Action.UNKNOWN, "no publisher of the repository is given")
    if isinstance(there, str):
        return Outlook(Action.UNKNOWN, there)
    image = there.get(wanted.name)
    return (None if image is None else _under_way(head, image)) or _due(
        head, image, outputs_document(wanted.wish.outputs)
    )


def _under_way(head: Digest, image: ImageAnswer) -> Outlook | None:
    """Return what the publisher does about a version already."""
    if image.digest != head:
        return None
    if image.state in FOLLOWED:
        return Outlook(Action.WAIT, f"the publisher is at it: {image.state}")
    if image.state == "failed":
        again = "is tried again by itself" if image.retryable else "is not tried again"
        return Outlook(Action.WAIT, f"the publisher failed, it {again}: {image.reason}")
    return None


def _due(head: Digest, image: ImageAnswer | None, outputs: Mapping[str, object]) -> Outlook:
    if image is None or image.published_digest is None:
        return Outlook(Action.PUBLISH, f"{head.oci} is not published")
    if image.has(head) and image.outputs != outputs:
        return Outlook(Action.REPLACE, f"{head.oci} is published with other outputs, and made anew of what is there")
    if image.has(head):
        return Outlook(Action.NOTHING, f"{head.oci} is published")
    return Outlook(Action.REPLACE, f"{head.oci} replaces sha256:{image.published_digest}")


def _unwished(plan: Plan, there: Mapping[RepositoryName, dict[ImageName, ImageAnswer] | str]) -> dict[Key, Outlook]:
    wanted = {(each.repository, each.name) for each in plan.wanted}
    text = "no list wishes it; it stays as the retention of the list that last did says"
    return {
        (repository, name): Outlook(Action.UNWISHED, text)
        for repository, images in there.items()
        if not isinstance(images, str)
        for name, image in images.items()
        if image.published_digest is not None and (repository, name) not in wanted
    }
