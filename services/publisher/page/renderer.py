"""Renders the page from its templates.

The templates escape whatever they are given: reasons of failures quote what uploaders wrote.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from services.common.digest import Digest
from services.common.readable import readable_size, readable_span
from services.publisher.journal.model import LayerRecord, LayerState, Selection
from services.publisher.status.model import PublisherStatus

__all__ = ["STATIC", "LayerList", "PageContent", "PageRenderer"]

STATIC: Final = Path(__file__).parent / "static"
"""Directory of what the page loads."""

_TEMPLATES: Final = Path(__file__).parent / "templates"
_DIGEST_LENGTH: Final = 64

_MEANINGS: Final[Mapping[LayerState, str]] = {
    LayerState.ANNOUNCED: "waiting",
    LayerState.FETCHING: "being downloaded",
    LayerState.VERIFIED: "ready",
    LayerState.PUBLISHING: "in the transaction",
    LayerState.PUBLISHED: "in the repository",
    LayerState.FAILED: "with a reason",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerList:
    """A page of the list of layers."""

    selection: Selection
    records: Sequence[LayerRecord]
    newest: str | None
    """Address of the first page, unless this is it."""
    older: str | None
    """Address of the following page, if there may be one."""
    problem: str | None = None
    """What is wrong with the query, so that nothing was looked for."""

    @property
    def is_single(self) -> bool:
        """Whether it is about one layer, which is shown in full."""
        return len(self.selection.prefix) == _DIGEST_LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """Everything that the page shows."""

    status: PublisherStatus
    latest: LayerRecord | None
    """The layer that was published last."""
    failures: Sequence[LayerRecord]
    """The last failures."""
    layers: LayerList


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
            "short": lambda digest: Digest(digest).short,
            "moment": _moment,
        }

    def page(self, content: PageContent) -> str:
        """Render the whole page."""
        return self._render("page.html", content)

    def live(self, content: PageContent) -> str:
        """Render the parts of the page that change."""
        return self._render("live.html", content)

    def _render(self, template: str, content: PageContent) -> str:
        return self._templates.get_template(template).render(
            status=content.status,
            latest=content.latest,
            failures=content.failures,
            layers=content.layers,
            meanings=_MEANINGS,
            states=LayerState,
            now=content.status.now,
        )


def _moment(seconds: float, now: float) -> Markup:
    """Write a time as how long ago it is, or how soon it will be; pointing at it shows the time itself."""
    time = datetime.fromtimestamp(seconds, UTC)
    away = now - seconds
    text = f"{readable_span(away)} ago" if away >= 0 else f"in {readable_span(-away)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        time.isoformat(timespec="milliseconds"), time.strftime("%Y-%m-%d %H:%M:%S UTC"), text
    )
