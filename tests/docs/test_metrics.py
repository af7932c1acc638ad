"""The page of metrics has what the programs tell, each metric once."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.converter.hints.metrics import HintMetrics
from services.converter.metrics import Metrics as ConverterMetrics
from services.node.metrics import NodeMetrics
from services.publisher.metrics import Metrics as PublisherMetrics
from tests.support.documentation import metrics_table

_PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def _converter() -> CollectorRegistry:
    registry = ConverterMetrics().registry
    HintMetrics(registry)
    return registry


_REGISTRIES = {
    "The publisher": PublisherMetrics().registry,
    "Worker nodes": NodeMetrics().registry,
    "The converter": _converter(),
}


@pytest.mark.parametrize("heading", _REGISTRIES)
def test_tables_are_those_of_the_code(heading: str) -> None:
    section = re.split(r"^## ", _PAGE.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    assert re.findall(r"^\| `.*$", section, re.MULTILINE) == metrics_table(_REGISTRIES[heading])


def test_every_program_has_a_section() -> None:
    assert re.findall(r"^## (.*)$", _PAGE, re.MULTILINE) == list(_REGISTRIES)
