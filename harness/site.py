"""The documentation as a site: what `make docs` builds it from, and a look at what came out.

README.md, CHANGELOG.md and docs/ are written for whoever reads them in the repository. The site has the README as its
front page, beside the pages of docs/; so links between them are rewritten, and only these.

`python -m harness.site collect DIRECTORY` writes the pages, `python -m harness.site check DIRECTORY` finds what the
built pages would load from elsewhere: a site on a network without Internet must be whole.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["SiteError", "collect", "links", "loaded_from_elsewhere", "rewritten"]

_ROOT: Final = Path(__file__).parents[1]
_DOCS: Final = PurePosixPath("docs")
_PLACES: Final = {
    PurePosixPath("README.md"): PurePosixPath("index.md"),
    PurePosixPath("CHANGELOG.md"): PurePosixPath("CHANGELOG.md"),
    PurePosixPath("LICENSE"): PurePosixPath("LICENSE.txt"),  # a name that browsers show
}
"""Where files from outside docs/ are in the site."""

_LINK: Final = re.compile(r"(?<=\]\()[^()\s]+|(?<=\bhref=\")[^\"]+|(?<=\bsrc=\")[^\"]+|(?<=\bsrcset=\")[^\"]+")
"""Targets of links and pictures, in Markdown and in HTML between it."""
_CODE: Final = re.compile(r"^( *```).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)
"""What is shown as it is: blocks, and code within a line."""
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
"""How links to other sites begin."""
_LOADING: Final = {
    ("audio", "src"),
    ("iframe", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("link", "href"),
    ("script", "src"),
    ("source", "srcset"),
    ("video", "src"),
}
"""Elements and attributes that a browser follows by itself."""


class SiteError(Exception):
    """The documentation cannot become a site."""


def links(text: str) -> Iterator[re.Match[str]]:
    """Find the links of a document that lead to files beside it, or to headings; code is passed over.

    Parameters
    ----------
    text
        A document in Markdown.
    """
    code = [match.span() for match in _CODE.finditer(text)]
    for link in _LINK.finditer(text):
        in_code = any(begin <= link.start() < end for begin, end in code)
        if not in_code and not _SCHEME.match(link[0]):
            yield link


def rewritten(page: PurePosixPath, text: str) -> str:
    """Make links lead to where their targets are in the site.

    Parameters
    ----------
    page
        Path of the document in the repository.
    text
        The document, in Markdown.

    Raises
    ------
    SiteError
        A link leads to what the site does not have.
    """
    parts = []
    done = 0
    for link in links(text):
        parts += [text[done : link.start()], _target(page, link[0])]
        done = link.end()
    return "".join([*parts, text[done:]])


def _target(page: PurePosixPath, link: str) -> str:
    path, hash_sign, heading = link.partition("#")
    if not path:
        return link
    parents = page.parent.parts
    while path.startswith("../"):
        if not parents:
            raise SiteError(f"{page}: the link {link} leads out of the repository; name a file in it")
        parents, path = parents[:-1], path.removeprefix("../")
    target = PurePosixPath(*parents, path)
    place = _PLACES.get(target)
    if place is None:
        if not target.is_relative_to(_DOCS):
            raise SiteError(
                f"{page}: the link {link} leads to a file that the site does not have; name it without a link"
            )
        place = target.relative_to(_DOCS)
    # All pages are side by side.
    return f"{place}{hash_sign}{heading}"


def collect(directory: Path) -> None:
    """Write the pages of the site, and what they show.

    Parameters
    ----------
    directory
        Where to; what is there is replaced.

    Raises
    ------
    SiteError
        A link leads to what the site does not have.
    """
    if directory.exists():
        shutil.rmtree(directory)
    shutil.copytree(_ROOT / _DOCS, directory)
    for source, place in _PLACES.items():
        shutil.copyfile(_ROOT / source, directory / place)
    sources = {place: source for source, place in _PLACES.items()}
    for file in sorted(directory.glob("*.md")):
        page = sources.get(PurePosixPath(file.name), _DOCS / file.name)
        file.write_text(rewritten(page, file.read_text()))


class _Loads(HTMLParser):
    """Collects what a page loads from other servers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        values = dict(attrs)
        if tag == "link" and values.get("rel") == "canonical":  # names the page, and loads nothing
            return
        self.found += [
            value for name, value in attrs if (tag, name) in _LOADING and value is not None and _SCHEME.match(value)
        ]


def loaded_from_elsewhere(directory: Path) -> list[str]:
    """Return what browsers would ask other servers for, as `page: address`.

    Parameters
    ----------
    directory
        The built site.
    """
    found = []
    for page in sorted(directory.rglob("*.html")):
        loads = _Loads()
        loads.feed(page.read_text())
        found += [f"{page.relative_to(directory)}: {address}" for address in loads.found if address[:5] != "data:"]
    return found


def _main() -> None:
    match sys.argv[1:]:
        case ["collect", directory]:
            try:
                collect(Path(directory))
            except SiteError as error:
                sys.exit(f"docs: {error}")
        case ["check", directory]:
            if found := loaded_from_elsewhere(Path(directory)):
                sys.exit("\n".join(["docs: pages load what is not in the site:", *found]))
        case _:
            sys.exit("usage: python -m harness.site collect|check DIRECTORY")


if __name__ == "__main__":
    _main()
