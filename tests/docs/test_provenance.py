import re
from pathlib import Path

from services.converter.provenance.errors import ProvenanceError

_TEXT = (Path(__file__).parents[2] / "docs" / "provenance.md").read_text()


def test_every_reason_of_a_refusal_is_explained() -> None:
    table = _TEXT.partition("## Why an image is refused")[2]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [error.word for error in ProvenanceError.__subclasses__()]


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)", _TEXT):
        assert (Path(__file__).parents[2] / "docs" / link).exists(), link
