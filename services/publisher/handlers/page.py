"""`/layers`: the page of all layers, by what it keeps itself up to date, and what all pages load."""

from typing import Final

from aiohttp import web
from multidict import MultiDict
from yarl import URL

from services.common.errors import InvalidValueError
from services.publisher.handlers.selection import Order, read_listing
from services.publisher.journal.journal import Journal
from services.publisher.journal.model import LayerRecord, LayerState, Selection
from services.publisher.page.content import LayerList, LayersContent
from services.publisher.page.renderer import STATIC, PageRenderer
from services.publisher.status.reader import StatusReader

__all__ = ["PageHandler", "page_answer"]

_LAYERS: Final = 25
"""Layers of one page."""
_FAILURES: Final = 6
"""Failed layers that are shown above the list."""
_FILES: Final = ("page.css", "page.js", "icon.svg")
_HEADERS: Final = {
    # Everything comes from here, and nothing is in the page itself.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class PageHandler:
    """Shows the publisher; whoever can reach the address may look, nobody can change anything here."""

    def __init__(self, *, status: StatusReader, journal: Journal, renderer: PageRenderer) -> None:
        self._status = status
        self._journal = journal
        self._renderer = renderer

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [
            web.get("/layers", self.page),
            web.get("/layers/live", self.live),
            *(web.get(f"/static/{name}", self.file) for name in _FILES),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """Show the whole page."""
        content = await self._content(request)
        return page_answer(self._renderer.layers(content), status=_status_of(content))

    async def live(self, request: web.Request) -> web.Response:
        """Show the parts that change."""
        content = await self._content(request)
        return page_answer(self._renderer.layers_live(content), status=_status_of(content))

    async def file(self, request: web.Request) -> web.FileResponse:
        """Give a file that the page loads."""
        name = request.path.removeprefix("/static/")
        return web.FileResponse(STATIC / name, headers={**_HEADERS, "Cache-Control": "no-cache"})

    async def _content(self, request: web.Request) -> LayersContent:
        published = await self._last(LayerState.PUBLISHED, 1)
        return LayersContent(
            status=await self._status.read(),
            latest=published[0] if published else None,
            failures=await self._last(LayerState.FAILED, _FAILURES),
            layers=await self._layers(request),
        )

    async def _last(self, state: LayerState, limit: int) -> list[LayerRecord]:
        return await self._journal.recent(Selection(states=(state,)), before=None, limit=limit)

    async def _layers(self, request: web.Request) -> LayerList:
        query = MultiDict(request.query)
        query["order"], query["limit"] = Order.RECENT, str(_LAYERS)
        try:
            listing = read_listing(query, page=_LAYERS, most=_LAYERS)
        except InvalidValueError as error:
            return LayerList(selection=Selection(), records=(), newest="/layers", older=None, problem=str(error))
        records = await listing.read(self._journal)
        here = URL("/layers").with_query(request.query)
        older = None
        if len(records) == _LAYERS:
            older = f"{here.update_query(after=str(records[-1].moment))}#layers"
        newest = f"{here.without_query_params('after')}#layers" if "after" in query else None
        return LayerList(selection=listing.selection, records=records, newest=newest, older=older)


def _status_of(content: LayersContent) -> int:
    return 200 if content.layers.problem is None else 400


def page_answer(html: str, *, status: int) -> web.Response:
    """Answer with a page, or a part of one."""
    return web.Response(
        text=html,
        content_type="text/html",
        status=status,
        headers={**_HEADERS, "Cache-Control": "no-store"},
    )
