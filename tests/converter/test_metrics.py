"""Alerts are about metrics that there are."""

import re
from pathlib import Path

import yaml

from services.converter.metrics import Metrics

_ALERTS = Path(__file__).parents[2] / "monitoring" / "converter-alerts.yml"


def test_every_metric_that_an_alert_is_about_exists() -> None:
    known = {sample.name for metric in Metrics().registry.collect() for sample in metric.samples}
    known |= {f"{metric.name}_total" for metric in Metrics().registry.collect() if metric.type == "counter"}
    rules = [rule for group in yaml.safe_load(_ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) == len({rule["alert"] for rule in rules})
    named = {name for rule in rules for name in re.findall(r"\bconverter_[a-z_]+", rule["expr"])}
    assert named
    assert named <= known
