"""Requests about images."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

import aiohttp

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.publisher_api.errors import ImagesNotOfferedError, NotKnownError
from services.common.publisher_api.image_model import (
    CHECKED_LIMIT,
    Collection,
    ImageAnswer,
    ImagePage,
    ImageRequest,
    ImageVersion,
    ImageVersions,
    UnknownImages,
)
from services.common.publisher_api.requests import Requests, body_of, parse, refuse

__all__ = ["ImagesApi"]

_COLLECTION_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=10)
"""A collection is answered when its transaction has ended; whoever asks bounds the wait."""
_NOT_OFFERED: Final = frozenset({404, 405})


class ImagesApi:
    """Asks a publisher about images; every method raises `PublisherApiError`.

    Parameters
    ----------
    requests
        Sends them.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def ask(self, request: ImageRequest) -> ImageAnswer:
        """Have an image published; asking again for what is published already changes nothing.

        Raises
        ------
        ImagesNotOfferedError
            The publisher is an earlier one, which publishes layers only.
        PublisherRefusedError
            The token is not one for this name, or the request is not of its form.
        """
        doing = self._requests.doing("POST", "/v1/images")
        body = request.model_dump(mode="json", exclude_defaults=True)
        async with self._requests.send("POST", "/v1/images", body=body) as response:
            content = await body_of(response)
            if response.status in _NOT_OFFERED:
                raise ImagesNotOfferedError(f"{doing}: this publisher publishes layers only: use a newer one")
            if not response.ok:
                refuse(doing, response.status, content)
        return parse(ImageAnswer, content, doing)

    async def checked(self, images: Sequence[tuple[ImageName, Digest]]) -> tuple[ImageName, ...]:
        """Tell that images are as they were; return those that are not published with the digest that is named.

        Parameters
        ----------
        images
            Names and digests; they are sent a thousand at once.
        """
        unknown: list[ImageName] = []
        for start in range(0, len(images), CHECKED_LIMIT):
            # Not by the model of the request: its parts are checked already, and there are tens of thousands.
            part = [{"name": name, "digest": digest.oci} for name, digest in images[start : start + CHECKED_LIMIT]]
            answer = await self._requests.ask("POST", "/v1/images/checked", UnknownImages, body={"images": part})
            unknown += (ImageName(name) for name in answer.unknown)
        return tuple(unknown)

    async def image(self, name: ImageName) -> ImageAnswer | None:
        """Ask for an image; None if the publisher has not heard of it."""
        try:
            return await self._requests.ask("GET", f"/v1/images/{name}", ImageAnswer)
        except NotKnownError:
            return None

    async def page(self, query: Sequence[tuple[str, str]] = ()) -> ImagePage:
        """Ask for a page of images, by the names and values of the query: `state`, `prefix`, `after`, `limit`."""
        return await self._requests.ask("GET", "/v1/images", ImagePage, query=query)

    async def following(self, page: ImagePage) -> ImagePage | None:
        """Ask for the page after another one, if there is one."""
        if page.next is None or not page.next.startswith("/v1/images?"):
            return None
        return await self._requests.ask("GET", page.next, ImagePage)

    async def every(self, query: Sequence[tuple[str, str]] = ()) -> AsyncGenerator[ImageAnswer, None]:
        """Ask for all images that a query is for, page by page; close it (`aclosing`) if it is left early."""
        page: ImagePage | None = await self.page(query)
        while page is not None:
            for image in page.images:
                yield image
            page = await self.following(page)

    async def retry(self, name: ImageName) -> ImageAnswer:
        """Have an image tried again.

        Raises
        ------
        NotKnownError
            The publisher has not heard of it.
        """
        return await self._requests.ask("POST", f"/v1/images/{name}/retry", ImageAnswer)

    async def restore(self, name: ImageName, digest: Digest | None = None) -> ImageAnswer:
        """Have a version that was replaced or removed published again.

        Parameters
        ----------
        digest
            The version; None for the last one.

        Raises
        ------
        NotKnownError
            The publisher has not heard of it.
        PublisherRefusedError
            It has been collected.
        """
        body = {} if digest is None else {"digest": digest.oci}
        return await self._requests.ask("POST", f"/v1/images/{name}/restore", ImageAnswer, body=body)

    async def remove(self, name: ImageName, *, keep_seconds: float | None = None) -> ImageAnswer:
        """Have an image unlinked in the next transaction.

        Parameters
        ----------
        keep_seconds
            How long it can be brought back; None for what the publisher is set to.

        Raises
        ------
        NotKnownError
            The publisher has not heard of it.
        """
        query = [] if keep_seconds is None else [("keep_seconds", f"{keep_seconds:.0f}")]
        return await self._requests.ask("DELETE", f"/v1/images/{name}", ImageAnswer, query=query)

    async def versions(self, name: ImageName) -> tuple[ImageVersion, ...]:
        """Ask for the versions of an image.

        Raises
        ------
        NotKnownError
            The publisher has not heard of it.
        """
        answer = await self._requests.ask("GET", f"/v1/images/{name}/versions", ImageVersions)
        return answer.versions

    async def collect(self, *, dry_run: bool, commits: Sequence[Digest] = ()) -> Collection:
        """Have layers taken out that no image names any more; bound it with a time-out.

        Parameters
        ----------
        dry_run
            Only tell which would go.
        commits
            Layers that came by commits and may go as well.

        Raises
        ------
        PublisherRefusedError
            Nothing can be collected now.
        """
        doing, body = (
            self._requests.doing("POST", "/v1/collection"),
            {"dry_run": dry_run, "commits": [digest.oci for digest in commits]},
        )
        async with self._requests.send("POST", "/v1/collection", body=body, timeout=_COLLECTION_TIMEOUT) as response:
            content = await body_of(response)
            if not response.ok:
                refuse(doing, response.status, content)
        return parse(Collection, content, doing)
