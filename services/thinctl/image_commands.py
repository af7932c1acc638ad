"""What the commands about images do."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from pydantic import ValidationError

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.image_outputs import outputs_of_words
from services.common.publisher_api import (
    Collection,
    ImageAnswer,
    ImageRequest,
    ImageVersion,
    NotKnownError,
    PublisherApi,
    PublisherRefusedError,
)
from services.common.readable import readable_size
from services.thinctl.commands import Access, bounded
from services.thinctl.tables import say

__all__ = [
    "collect",
    "image",
    "images",
    "publish",
    "remove",
    "request_for",
    "restore",
    "retry",
    "retry_failed",
]

_PAGE: Final = 100
"""Images that are asked for at once; each comes with its layers."""
_WAITED: Final = "not everything has been done"


def request_for(
    name: str,
    *,
    reference: str | None,
    digest: str | None,
    platforms: Sequence[str],
    outputs: Sequence[str],
    priority: int,
) -> ImageRequest:
    """Make a request from what somebody typed.

    Raises
    ------
    InvalidValueError
        Something of it is not of its form.
    """
    wanted = None if digest is None else Digest.from_oci(digest)
    try:
        return ImageRequest(
            name=ImageName(name),
            reference=reference,
            digest=wanted,
            platforms=tuple(platforms),
            priority=priority,
            outputs=outputs_of_words(outputs),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise InvalidValueError(f"{first['loc'][0]}: {first['msg']}: {str(first['input'])[:300]!r}") from None


async def images(
    access: Access, query: Sequence[tuple[str, str]], *, limit: int | None
) -> tuple[list[ImageAnswer], bool]:
    """List images that a query selects; return them, and whether there are more than the limit allows."""
    found: list[ImageAnswer] = []
    asked = [*query, ("limit", str(min(_PAGE, (limit or _PAGE) + 1)))]
    async with access.open() as api, aclosing(api.images.every(asked)) as every:
        async for item in every:
            if len(found) == limit:
                return found, True
            found.append(item)
    return found, False


async def image(access: Access, name: str) -> tuple[ImageAnswer, tuple[ImageVersion, ...]]:
    """Show an image, and what its name has named."""
    wanted = ImageName(name)
    async with access.open() as api:
        found = await _known(api, wanted)
        return found, await api.images.versions(wanted)


async def publish(access: Access, request: ImageRequest, *, timeout: float | None) -> ImageAnswer:  # noqa: ASYNC109 - the user's
    """Ask for an image.

    Parameters
    ----------
    timeout
        How long to wait until it is published, in seconds; None for not at all.
    """
    async with access.open() as api:
        asked = await api.images.ask(request)
        if timeout is None:
            return asked
        async with bounded(timeout, _WAITED):
            return await _published(api, asked, request.digest)


async def retry(access: Access, names: Sequence[str], *, timeout: float | None) -> list[ImageAnswer]:  # noqa: ASYNC109 - the user's
    """Have images tried again; `timeout` is that of `publish`, for all of them."""
    wanted = [ImageName(name) for name in names]
    async with access.open() as api:
        restarted = [await api.images.retry(name) for name in wanted]
        if timeout is None:
            return restarted
        async with bounded(timeout, _WAITED):
            return [await _published(api, item, None) for item in restarted]


async def retry_failed(access: Access) -> int:
    """Have every failed image tried again; return how many there are."""
    async with access.open() as api:
        # All are found before one changes, and with it the pages.
        names = [ImageName(item.name) async for item in api.images.every([("state", "failed")])]
        for name in names:
            await api.images.retry(name)
    return len(names)


async def restore(access: Access, name: str, digest: str | None, *, timeout: float | None) -> ImageAnswer:  # noqa: ASYNC109 - the user's
    """Have a version published again, the last one if none is named; `timeout` is that of `publish`."""
    wanted, version = ImageName(name), None if digest is None else Digest.from_oci(digest)
    async with access.open() as api:
        asked = await api.images.restore(wanted, version)
        if timeout is None:
            return asked
        async with bounded(timeout, _WAITED):
            return await _published(api, asked, asked.digest)


async def remove(
    access: Access,
    names: Sequence[str],
    *,
    keep: float | None,
    timeout: float | None,  # noqa: ASYNC109 - the user's
) -> list[ImageAnswer]:
    """Have images removed.

    Parameters
    ----------
    keep
        How long they can be brought back at least, in seconds; None for what the publisher is set to.
    timeout
        How long to wait until they are removed, in seconds; None for not at all.
    """
    wanted = [ImageName(name) for name in names]
    async with access.open() as api:
        removed = [await api.images.remove(name, keep_seconds=keep) for name in wanted]
        if timeout is None:
            return removed
        async with bounded(timeout, _WAITED):
            return [await _removed(api, name) for name in wanted]


async def collect(
    access: Access,
    commits: Sequence[str],
    *,
    dry_run: bool,
    timeout: float,  # noqa: ASYNC109 - the user's
) -> Collection:
    """Have layers taken out that no image names any more, and given ones of commits, or only named that would be."""
    wanted = [Digest(digest.removeprefix("sha256:")) for digest in commits]
    async with access.open() as api, bounded(timeout, "the collection has not ended"):
        return await api.images.collect(dry_run=dry_run, commits=wanted)


async def _known(api: PublisherApi, name: ImageName) -> ImageAnswer:
    found = await api.images.image(name)
    if found is None:
        raise NotKnownError(f"no image {name} has been asked for: `thinctl images publish {name}` does")
    return found


async def _published(api: PublisherApi, asked: ImageAnswer, digest: str | None) -> ImageAnswer:
    """Wait until an image is published, with a digest if one is given, and tell of its progress."""
    name, last, told = ImageName(asked.name), asked, ""

    async def done() -> bool:
        nonlocal last, told
        last = await _known(api, name)
        progress = _progress(last)
        if progress != told:
            told = progress
            say(f"{name}: {progress}")
        if last.is_refused:
            raise PublisherRefusedError(
                f"image {name} is not published: {last.reason}: mend it, then `thinctl images retry {name}`"
            )
        if last.state in ("removing", "removed"):
            raise PublisherRefusedError(f"image {name} is not published: somebody removed it meanwhile")
        if last.state == "published" and digest not in (None, last.published_digest):
            raise PublisherRefusedError(f"image {name} is published, but somebody asked for another version meanwhile")
        return last.state == "published"

    await api.wait(done)
    return last


async def _removed(api: PublisherApi, name: ImageName) -> ImageAnswer:
    last: list[ImageAnswer] = []

    async def done() -> bool:
        last[:] = [await _known(api, name)]
        if last[0].state not in ("removing", "removed"):
            raise PublisherRefusedError(f"image {name} is not removed: somebody asked for it meanwhile")
        return last[0].state == "removed"

    await api.wait(done)
    return last[0]


def _progress(image: ImageAnswer) -> str:
    if image.state == "failed":
        return f"failed, and tried again: {image.reason}"
    if image.state != "fetching" or not image.layers:
        return image.state
    there = sum(layer.state in ("prepared", "published") for layer in image.layers)
    return f"fetching, {there} of {len(image.layers)} layers, {readable_size(image.bytes_fetched)}"
