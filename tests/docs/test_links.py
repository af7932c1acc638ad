"""Links of the documentation lead somewhere, in the repository and on the site, whose navigation has every page."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness.site import collect, links

_ROOT = Path(__file__).parents[2]
_PAGES = [_ROOT / "README.md", _ROOT / "CHANGELOG.md", *sorted((_ROOT / "docs").glob("*.md"))]


def _headings(text: str) -> set[str]:
    """Return what headings are linked by, as code forges make it of their words."""
    found: dict[str, int] = {}
    for words in re.findall(
        r"^#+ (.+)$", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    ):
        name = re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
        if found[name]:
            found[f"{name}-{found[name]}"] = 0
    return set(found)


def _wrong_links(page: Path) -> Iterator[str]:
    for link in links(page.read_text()):
        path, _, heading = link[0].partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (heading and heading not in _headings(target.read_text())):
            yield link[0]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert list(_wrong_links(page)) == []


def test_a_wrong_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One, two\n# One, two\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[right](other.md#one-two-1) [right](#here) [elsewhere](https://example.org/#x) `[code](no.md)`\n# Here\n"
        '[no file](none.md) [no heading](other.md#no-heading) [none](#there) <img src="none.svg">\n'
    )
    assert list(_wrong_links(page)) == ["none.md", "other.md#no-heading", "#there", "none.svg"]


def _named(entry: object) -> Iterator[str]:
    """Return the pages that a part of the navigation has."""
    match entry:
        case str():
            yield entry
        case dict():
            yield from _named(list(entry.values()))
        case list():
            for part in entry:
                yield from _named(part)


def test_the_navigation_has_every_page_of_the_site(tmp_path: Path) -> None:
    collect(tmp_path / "site")
    pages = sorted(path.name for path in (tmp_path / "site").glob("*.md"))
    assert sorted(_named(yaml.safe_load((_ROOT / "mkdocs.yml").read_text())["nav"])) == pages
    assert (tmp_path / "site" / "LICENSE.txt").exists()
    for name in pages:
        assert list(_wrong_links(tmp_path / "site" / name)) == [], name
