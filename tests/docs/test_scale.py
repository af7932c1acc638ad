"""docs/scale.md names what there is."""

import re
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"
_TEXT = (_DOCS / "scale.md").read_text()


def test_settings_are_settings() -> None:
    named = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)", _TEXT))
    known = set(re.findall(r"^\| `([A-Z0-9_]+)`", (_DOCS / "SETTINGS.md").read_text(), re.MULTILINE))
    assert named
    assert named <= known


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", _TEXT)
    assert "scale.svg" in links
    assert [link for link in links if not (_DOCS / link).exists()] == []


def test_what_is_calculated_with_has_been_measured() -> None:
    """Bytes for each layer are the slopes between the rows of the table."""
    rows = dict(re.findall(r"^\| `flat` \| ([\d,]+) \| ([\d,]+) kB \|", _TEXT, re.MULTILINE))
    fewer, more = (int(rows[layers].replace(",", "")) for layers in ("10,000", "100,000"))
    (said,) = re.findall(r"^\| root catalog, `flat` \| layers \| (\d+) B stored", _TEXT, re.MULTILINE)
    assert round((more - fewer) / 90) == int(said)
