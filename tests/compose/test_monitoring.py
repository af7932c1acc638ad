"""Prometheus' configuration, alerts and dashboard name what the publisher measures."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from services.publisher.metrics import Metrics
from tests.support.compose import CHECKOUT

_DASHBOARD: dict[str, Any] = json.loads((CHECKOUT / "monitoring" / "publisher.json").read_text())
_ALERTS = (CHECKOUT / "monitoring" / "alerts.yml").read_text()


def _expressions() -> list[str]:
    return [target["expr"] for panel in _DASHBOARD["panels"] for target in panel["targets"]]


def _measured() -> set[str]:
    """Name every series that the publisher can show."""
    names = set()
    for family in Metrics().registry.collect():
        if family.type == "counter":
            names.add(f"{family.name}_total")
        elif family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(family.name)
    return names


@pytest.mark.parametrize("text", [_ALERTS, "\n".join(_expressions())], ids=["alerts", "dashboard"])
def test_every_series_is_one_that_the_publisher_shows(text: str) -> None:
    used = set(re.findall(r"\bpublisher_\w+", text))
    assert used
    assert used - _measured() == set()


def test_the_dashboard_shows_what_operators_ask_for() -> None:
    shown = "\n".join(_expressions())
    for series in (
        "publisher_layers{state",
        "publisher_publish_seconds_bucket",
        "publisher_batch_layers_sum",
        "publisher_fetched_bytes_total",
        "publisher_published_bytes_total",
        "publisher_failures_total",
    ):
        assert series in shown
    assert [panel["title"] for panel in _DASHBOARD["panels"] if not panel["description"]] == []
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in _DASHBOARD["panels"]]
    assert len(set(places)) == len(places)


def test_prometheus_takes_the_configuration_and_the_alerts() -> None:
    # It reads the alerts that the configuration names as well.
    ended = subprocess.run(
        ["promtool", "check", "config", str(CHECKOUT / "monitoring" / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{_ALERTS.count('- alert:')} rules found" in ended.stdout


def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(_expressions())]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    ended = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.json")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
