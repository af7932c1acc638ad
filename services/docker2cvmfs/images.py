"""Images that the publisher fetches from their registry by itself: nothing of their layers goes through here."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from services.common.image_name import ImageName
from services.common.image_outputs import NO_OUTPUTS, ImageOutputs
from services.common.publisher_api import (
    ImageAnswer,
    ImageRequest,
    PublisherApi,
    PublisherRefusedError,
    PublisherTimeoutError,
)
from services.docker2cvmfs.conversion import Conversion
from services.docker2cvmfs.progress import LayerProgress
from services.docker2cvmfs.publish import LayerOutcome, Outcome, layers_of
from services.registry.client import RegistryClient
from services.registry.images import Image
from services.registry.reference import HUB_HOST, ImageReference

__all__ = ["ask_for_image", "follow_image", "image_name", "read_pinned"]

_PUBLISHED: Final = "published"


def image_name(reference: ImageReference) -> ImageName:
    """Return what an image is called in a repository: as people write it, with its tag or else its digest."""
    registry = "docker.io" if reference.authority == HUB_HOST else reference.authority
    version = f":{reference.tag}" if reference.tag is not None else f"@{reference.version}"
    return ImageName(f"{registry}/{reference.repository}{version}")


async def read_pinned(conversion: Conversion, registry: RegistryClient) -> tuple[ImageReference, list[Image]]:
    """Return what a tag names now, by its digest, and the images of exactly that.

    The publisher is asked for the digest, so that it publishes the layers that the thin image names, whatever becomes
    of the tag meanwhile.
    """
    found = await registry.manifest(conversion.reference)
    pinned = replace(conversion.reference, digest=found.digest)
    images = await replace(conversion, reference=pinned).read(registry)
    # Thin images name what was asked for.
    digest = conversion.reference.digest
    return pinned, [replace(image, reference=replace(image.reference, digest=digest)) for image in images]


async def ask_for_image(
    publisher: PublisherApi, reference: ImageReference, images: Sequence[Image], *, outputs: ImageOutputs = NO_OUTPUTS
) -> ImageAnswer:
    """Have the publisher publish an image.

    Parameters
    ----------
    reference
        Where it is, with the digest that is to be published.
    images
        Those for the platforms that are wanted.
    outputs
        In which further ways the repository is to show it.

    Raises
    ------
    ImagesNotOfferedError
        The publisher publishes layers only.
    PublisherApiError
        It refused, or does not answer.
    """
    return await publisher.images.ask(
        ImageRequest(
            name=image_name(reference),
            reference=str(replace(reference, digest=None)) if reference.tag is not None else str(reference),
            digest=None if reference.digest is None else reference.digest.oci,
            platforms=tuple(str(image.platform) for image in images),
            outputs=outputs,
        )
    )


async def follow_image(
    publisher: PublisherApi,
    asked: ImageAnswer,
    images: Sequence[Image],
    *,
    progress: LayerProgress,
    timeout: float | None,  # noqa: ASYNC109 - how long to wait is the user's to say
) -> list[LayerOutcome]:
    """Wait until an image is published; return what was done about each layer.

    Parameters
    ----------
    asked
        What the publisher said when it was asked.
    timeout
        How long, in seconds; None for not at all.

    Raises
    ------
    PublisherApiError
        The image is refused, the publisher does not answer, or the time is over.
    """
    shown = _Shown(images, progress, asked)

    async def done() -> bool:
        answer = await publisher.images.image(ImageName(asked.name))
        if answer is None or answer.digest != asked.digest:
            raise PublisherRefusedError(f"{asked.name}: somebody else has asked for another version: ask again")
        shown.show(answer)
        if answer.is_refused:
            raise PublisherRefusedError(
                f"{asked.name} is not published: {answer.reason}: mend it, then ask again; --via bucket brings the "
                "layers to the publisher from here"
            )
        return answer.state == _PUBLISHED

    if timeout is not None and asked.state != _PUBLISHED:
        try:
            async with asyncio.timeout(timeout):
                await publisher.wait(done)
        except TimeoutError:
            raise PublisherTimeoutError(
                f"{asked.name} is not published within {timeout:g} s; the publisher goes on: call again, or give a "
                "larger --timeout"
            ) from None
    return shown.outcomes()


class _Shown:
    """What has been shown of the layers of an image that the publisher works on."""

    def __init__(self, images: Sequence[Image], progress: LayerProgress, asked: ImageAnswer) -> None:
        self._layers = [layer for _, layer in layers_of(images).values()]
        self._progress = progress
        self._first: dict[str, str] = {}
        self._last: dict[str, str] = {}
        for layer in self._layers:
            progress.add(layer)
            if asked.state == _PUBLISHED:
                self._first[layer.digest] = _PUBLISHED
        self.show(asked)

    def show(self, answer: ImageAnswer) -> None:
        """Show what is new."""
        states = {layer.digest: layer.state for layer in answer.layers}
        for layer in self._layers:
            known = states.get(layer.digest.oci)
            if known is not None:
                self._first.setdefault(layer.digest, known)
            state = known or answer.state
            if self._last.get(layer.digest) != state:
                self._last[layer.digest] = state
                self._progress.reached(layer.digest, state)

    def outcomes(self) -> list[LayerOutcome]:
        """Return what was done: what was published when it was first heard of was so before."""
        return [
            LayerOutcome(
                layer=layer,
                outcome=Outcome.PUBLISHED if self._first.get(layer.digest) == _PUBLISHED else Outcome.FETCHED,
            )
            for layer in self._layers
        ]
