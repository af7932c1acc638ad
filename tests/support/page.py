"""What holds of every page that the publisher shows to people."""

from pathlib import Path
from typing import Final

from tests.support.chromium import Tab
from tests.support.pictures import Picture
from tests.support.publisher import REPOSITORY

__all__ = ["HOSTILE", "THEMES", "WIDTHS", "looks_right"]

HOSTILE: Final = "<script>document.title = 'hacked'</script>\"'><img src=x onerror=alert(1)> & so on"
"""What nobody's browser may take for anything but text."""
WIDTHS: Final = (1280, 390)
"""In pixels: a desk and a hand."""
THEMES: Final = ("light", "dark")

_OVERFLOWING: Final = """
[...document.querySelectorAll("body *")]
    .filter(element => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .filter(element => !element.closest("thead"))
    .map(element => element.outerHTML.slice(0, 120))
"""


async def looks_right(tab: Tab, picture: Path, *, width: int, theme: str) -> None:
    """Check that a page fits, is not blank, has its theme, and that its policy forbids nothing of it."""
    assert await tab.value("document.documentElement.scrollWidth") == width
    assert await tab.value(_OVERFLOWING) == []
    shown = Picture.parse(await tab.screenshot(picture))
    assert shown.width == width
    assert shown.variety > 200
    assert (min(shown.corner) > 200) == (theme == "light")
    assert (max(shown.corner) < 60) == (theme == "dark")
    assert await tab.value("document.title") == f"{REPOSITORY} \N{EN DASH} publisher"
    assert tab.complaints == []
