"""Asks a publisher for the images that DUCC has made, and follows until they are this suite's.

The publisher remembers what it was asked for, so that this can be killed and repeated.
"""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

from services.common.image_name import ImageName
from services.common.image_outputs import outputs_document
from services.common.publisher_api import ImageAnswer, ImageRequest, ImagesApi, PublisherRefusedError
from services.common.publisher_api.image_model import FOLLOWED
from services.converter.adoption.model import FoundImage
from services.converter.rounds.side_by_side import side_by_side

__all__ = ["Taken", "Told", "take_over"]

_PUBLISHED: Final = "published"
_PRIORITY: Final = -100
"""What people ask for now comes before what has been there for years."""
_FIRST: Final = 0.1
_LAST: Final = 10.0
"""Seconds between two looks at the publisher, at first and in the end, while nothing comes of them."""


class Told(Protocol):
    """Is told of each image that has come to an end."""

    def __call__(self, name: ImageName, failure: str | None) -> None:
        """Take note; `failure` says why it could not be published."""


@dataclass(slots=True, kw_only=True)
class Taken:
    """What has come of it."""

    published: list[ImageName] = field(default_factory=list)
    failed: dict[ImageName, str] = field(default_factory=dict)
    """Why, by their names."""
    waiting: list[ImageName] = field(default_factory=list)
    """Those that the publisher has been asked for, and that nobody has waited for."""

    def fail(self, name: ImageName, reason: str, told: Told) -> None:
        """Take note of a failure."""
        self.failed[name] = reason
        told(name, reason)


async def take_over(images: Iterable[FoundImage], publisher: ImagesApi, *, wait: bool, told: Told) -> Taken:
    """Ask for images, and wait for them.

    Parameters
    ----------
    images
        Those that are to be made anew.
    publisher
        The repository's.
    wait
        Whether to wait until each is published or has failed.
    told
        Is told how it goes.

    Raises
    ------
    PublisherApiError
        The publisher failed or refused.
    """
    waiting: dict[ImageName, FoundImage] = {}

    async def ask(image: FoundImage) -> None:
        try:
            answer = await _ask(image, publisher)
        except PublisherRefusedError as error:  # of one image: no other's
            taken.fail(image.name, str(error), told)
            return
        waiting[image.name] = image
        _settle(answer, waiting, taken, told)

    taken = Taken()
    await side_by_side(images, ask)
    pause = _FIRST
    while wait and waiting:
        await asyncio.sleep(pause)
        before = len(waiting)
        async with aclosing(publisher.every()) as answers:
            async for answer in answers:
                _settle(answer, waiting, taken, told)
        pause = _FIRST if len(waiting) < before else min(pause * 1.5, _LAST)
    taken.waiting = sorted(waiting)
    return taken


async def _ask(image: FoundImage, publisher: ImagesApi) -> ImageAnswer:
    """Ask for an image, unless the publisher is at it, or has published it since it was looked for."""
    there = await publisher.image(image.name)
    done = there is not None and there.state in {*FOLLOWED, _PUBLISHED}
    if there is not None and done and there.outputs == outputs_document(image.outputs):
        return there
    return await publisher.ask(
        ImageRequest(name=image.name, platforms=image.platforms, outputs=image.outputs, priority=_PRIORITY)
    )


def _settle(answer: ImageAnswer, waiting: dict[ImageName, FoundImage], taken: Taken, told: Told) -> None:
    """Take note of what the publisher says of an image, if it is one that is waited for."""
    name = ImageName(answer.name)
    if name not in waiting or answer.state in FOLLOWED:
        return
    del waiting[name]
    if answer.state == _PUBLISHED:
        taken.published.append(name)
        told(name, None)
    else:
        taken.fail(name, answer.reason or f"it is {answer.state}", told)
