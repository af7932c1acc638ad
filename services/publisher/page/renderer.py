"""Renders the pages from their templates.

The templates escape whatever they are given: reasons of failures quote what uploaders wrote.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from services.common.digest import Digest
from services.common.readable import readable_size, readable_span
from services.common.times import text_of
from services.publisher.journal.image_model import ImageState, ImageSummary
from services.publisher.journal.model import LayerState
from services.publisher.page.content import ImageContent, ImagesContent, LayersContent
from services.publisher.status.model import PublisherStatus
from services.publisher.status.publishers import standing_of

__all__ = ["STATIC", "PageRenderer"]

STATIC: Final = Path(__file__).parent / "static"
"""Directory of what the page loads."""

_TEMPLATES: Final = Path(__file__).parent / "templates"

_MEANINGS: Final[Mapping[LayerState, str]] = {
    LayerState.ANNOUNCED: "waiting",
    LayerState.FETCHING: "being downloaded",
    LayerState.VERIFIED: "ready",
    LayerState.PUBLISHING: "in the transaction",
    LayerState.PUBLISHED: "in the repository",
    LayerState.FAILED: "with a reason",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    """How many images are in some states, with the way to them."""

    name: str
    states: tuple[ImageState, ...]
    meaning: str

    @property
    def query(self) -> str:
        """The query that selects them."""
        return "&".join(f"state={state}" for state in self.states)

    def count(self, images: ImageSummary) -> int:
        """Count them."""
        return sum(images.counts[state] for state in self.states)


_TILES: Final = (
    _Tile(name="asked", states=(ImageState.ASKED,), meaning="waiting"),
    _Tile(name="fetching", states=(ImageState.RESOLVING, ImageState.FETCHING), meaning="being fetched"),
    _Tile(name="ready", states=(ImageState.READY, ImageState.REMOVING), meaning="for the next transaction"),
    _Tile(name="publishing", states=(ImageState.PUBLISHING,), meaning="in the transaction"),
    _Tile(name="published", states=(ImageState.PUBLISHED,), meaning="in the repository"),
    _Tile(name="failed", states=(ImageState.FAILED,), meaning="with a reason"),
)


class PageRenderer:
    """Fills the templates."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "size": lambda count: "\N{EN DASH}" if count is None else readable_size(count),
            "span": readable_span,
            "count": lambda number: f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
            "standing": standing_of,
            "short": lambda digest: Digest(digest).short,
            "moment": _moment,
        }

    def layers(self, content: LayersContent) -> str:
        """Render the whole page of layers."""
        return self._layers("layers_page.html", content)

    def layers_live(self, content: LayersContent) -> str:
        """Render the parts of the page of layers that change."""
        return self._layers("layers_live.html", content)

    def images(self, content: ImagesContent) -> str:
        """Render the whole page of images."""
        return self._images("images_page.html", content)

    def images_live(self, content: ImagesContent) -> str:
        """Render the parts of the page of images that change."""
        return self._images("images_live.html", content)

    def image(self, content: ImageContent) -> str:
        """Render the whole page of an image."""
        return self._image("image_page.html", content)

    def image_live(self, content: ImageContent) -> str:
        """Render the parts of the page of an image that change."""
        return self._image("image.html", content)

    def _layers(self, template: str, content: LayersContent) -> str:
        return self._render(
            template,
            content.status,
            view="layers",
            latest=content.latest,
            failures=content.failures,
            layers=content.layers,
            meanings=_MEANINGS,
            states=LayerState,
        )

    def _images(self, template: str, content: ImagesContent) -> str:
        return self._render(
            template,
            content.status,
            view="images",
            latest=content.latest,
            failures=content.failures,
            images=content.images,
            image_states=ImageState,
            tiles=_TILES,
        )

    def _image(self, template: str, content: ImageContent) -> str:
        return self._render(
            template,
            content.status,
            view="image",
            image=content.record,
            layers=content.layers,
            versions=content.versions,
            outputs=content.outputs,
            problem=content.problem,
        )

    def _render(self, template: str, status: PublisherStatus, **values: object) -> str:
        return self._templates.get_template(template).render(status=status, now=status.now, **values)


def _moment(seconds: float, now: float) -> Markup:
    """Write a time as how long ago it is, or how soon it will be; pointing at it shows the time itself."""
    time = datetime.fromtimestamp(seconds, UTC)
    away = now - seconds
    text = f"{readable_span(away)} ago" if away >= 0 else f"in {readable_span(-away)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        text_of(time), time.strftime("%Y-%m-%d %H:%M:%S UTC"), text
    )
