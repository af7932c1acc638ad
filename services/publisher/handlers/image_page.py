"""`/`: the page of all images, `/image?name=NAME`: the page of one, and what keeps them up to date."""

from typing import Final

from aiohttp import web
from multidict import MultiDict
from yarl import URL

from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.publisher.handlers.image_document import image_layers
from services.publisher.handlers.image_selection import read_image_listing
from services.publisher.handlers.page import page_answer
from services.publisher.journal.image_model import ImageSelection
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerState, Selection
from services.publisher.page.content import ImageContent, ImageList, ImagesContent
from services.publisher.page.renderer import PageRenderer
from services.publisher.pipeline.images.claims import ImageClaims
from services.publisher.pipeline.images.outputs import OutputsReader
from services.publisher.status.reader import StatusReader

__all__ = ["ImagePageHandler"]

_IMAGES: Final = 25
"""Images of one page."""
_FAILURES: Final = 6
"""Failed images that are shown above the list."""


class ImagePageHandler:
    """Shows the images; whoever can reach the address may look, nobody can change anything here."""

    def __init__(self, *, status: StatusReader, journal: Journal, claims: ImageClaims, renderer: PageRenderer) -> None:
        self._status = status
        self._journal = journal
        self._claims = claims
        self._renderer = renderer
        self._outputs = OutputsReader(versions=journal.versions, flats=journal.flats)

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [
            web.get("/", self.images),
            web.get("/live", self.images_live),
            web.get("/image", self.image),
            web.get("/image/live", self.image_live),
        ]

    async def images(self, request: web.Request) -> web.Response:
        """Show the whole page of all images."""
        content = await self._images(request)
        return page_answer(self._renderer.images(content), status=_status_of(content))

    async def images_live(self, request: web.Request) -> web.Response:
        """Show its parts that change."""
        content = await self._images(request)
        return page_answer(self._renderer.images_live(content), status=_status_of(content))

    async def image(self, request: web.Request) -> web.Response:
        """Show the whole page of one image."""
        content = await self._image(request)
        return page_answer(self._renderer.image(content), status=200 if content.problem is None else 404)

    async def image_live(self, request: web.Request) -> web.Response:
        """Show its parts that change."""
        content = await self._image(request)
        return page_answer(self._renderer.image_live(content), status=200 if content.problem is None else 404)

    async def _images(self, request: web.Request) -> ImagesContent:
        published = await self._journal.recent(Selection(states=(LayerState.PUBLISHED,)), before=None, limit=1)
        return ImagesContent(
            status=await self._status.read(),
            latest=published[0] if published else None,
            failures=await self._journal.images.recent_failures(_FAILURES),
            images=await self._list(request),
        )

    async def _list(self, request: web.Request) -> ImageList:
        query = MultiDict(request.query)
        query["limit"] = str(_IMAGES)
        try:
            selection, after, limit = read_image_listing(query)
        except InvalidValueError as error:
            return ImageList(selection=ImageSelection(), records=(), first="/", following=None, problem=str(error))
        records = await self._journal.images.page(selection, after=after, limit=limit)
        here = URL("/").with_query(request.query)
        following = f"{here.update_query(after=records[-1].name)}#images" if len(records) == limit else None
        first = f"{here.without_query_params('after')}#images" if after else None
        return ImageList(selection=selection, records=records, first=first, following=following)

    async def _image(self, request: web.Request) -> ImageContent:
        status = await self._status.read()
        try:
            name = ImageName(request.query.get("name", ""))
        except InvalidValueError as error:
            return ImageContent(status=status, problem=str(error))
        record = await self._journal.images.get(name)
        if record is None:
            return ImageContent(status=status, problem=f"No image {name} has been asked for")
        layers = await self._journal.versions.layers([(name, record.shown)] if record.shown else ())
        return ImageContent(
            status=status,
            record=record,
            layers=image_layers(record, layers.get(name, ()), self._claims.work(name)),
            versions=await self._journal.versions.of(name),
            outputs=await self._outputs.read(record),
        )


def _status_of(content: ImagesContent) -> int:
    return 200 if content.images.problem is None else 400
