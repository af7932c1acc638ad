"""Prometheus' configuration, alerts and dashboards name what publisher and worker nodes measure."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.node.metrics import NodeMetrics
from services.publisher.metrics import Metrics
from tests.support.compose import CHECKOUT

_MONITORING = CHECKOUT / "monitoring"
_ALERTS = (_MONITORING / "alerts.yml").read_text()
_CONVERTER_ALERTS = (_MONITORING / "converter-alerts.yml").read_text()
_WORKER_ALERTS = (_MONITORING / "worker-alerts.yml").read_text()


def _dashboard(name: str) -> dict[str, Any]:
    return json.loads((_MONITORING / f"{name}.json").read_text())  # type: ignore[no-any-return]


def _expressions(name: str) -> list[str]:
    return [target["expr"] for panel in _dashboard(name)["panels"] for target in panel["targets"]]


def _measured(registry: CollectorRegistry) -> set[str]:
    """Name every series that there can be."""
    names = set()
    for family in registry.collect():
        if family.type == "counter":
            names.add(f"{family.name}_total")
        elif family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(family.name)
    return names


@pytest.mark.parametrize(
    ("text", "prefix", "registry"),
    [
        pytest.param(_ALERTS, "publisher", Metrics().registry, id="alerts"),
        pytest.param("\n".join(_expressions("publisher")), "publisher", Metrics().registry, id="dashboard"),
        pytest.param(_WORKER_ALERTS, "thin_node", NodeMetrics().registry, id="alerts of nodes"),
        pytest.param("\n".join(_expressions("worker")), "thin_node", NodeMetrics().registry, id="dashboard of nodes"),
    ],
)
def test_every_series_is_one_that_is_shown(text: str, prefix: str, registry: CollectorRegistry) -> None:
    used = set(re.findall(rf"\b{prefix}_\w+", text))
    assert used
    assert used - _measured(registry) == set()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "publisher",
            [
                "publisher_layers{state",
                "publisher_publish_seconds_bucket",
                "publisher_batch_layers_sum",
                "publisher_fetched_bytes_total",
                "publisher_published_bytes_total",
                "publisher_failures_total",
            ],
        ),
        (
            "worker",
            [
                "thin_node_operations_total",
                "thin_node_operations_seconds_bucket",
                "thin_node_publication_waits_total",
                "thin_node_uploads_total",
                "thin_node_local_copies{",
                "thin_node_repository_hung_lookups",
            ],
        ),
    ],
)
def test_the_dashboards_show_what_operators_ask_for(name: str, wanted: list[str]) -> None:
    shown = "\n".join(_expressions(name))
    for series in wanted:
        assert series in shown
    panels = _dashboard(name)["panels"]
    assert [panel["title"] for panel in panels if not panel["description"]] == []
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in panels]
    assert len(set(places)) == len(places)


def test_prometheus_takes_the_configuration_and_the_alerts() -> None:
    # It reads the alerts and the nodes that the configuration names as well.
    ended = subprocess.run(
        ["promtool", "check", "config", str(_MONITORING / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for alerts in (_ALERTS, _CONVERTER_ALERTS, _WORKER_ALERTS):
        assert f"{alerts.count('- alert:')} rules found" in ended.stdout


@pytest.mark.parametrize("name", ["publisher", "worker"])
def test_prometheus_understands_every_expression_of_the_dashboards(name: str, tmp_path: Path) -> None:
    expressions = [expression.replace("$__rate_interval", "1m") for expression in _expressions(name)]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    ended = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.json")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


_FAILURES = """
rule_files: [{rules}]
tests:
  - interval: 1m
    input_series:
      - series: 'thin_node_repository_hung_lookups{{instance="n", job="worker-nodes", repository="r"}}'
        values: '0x5 1x20'
      - series: 'thin_node_oldest_local_copy_seconds{{instance="n", job="worker-nodes"}}'
        values: '3700x20'
      - series: 'thin_node_uploads_total{{instance="n", job="worker-nodes", outcome="failed"}}'
        values: '0x5 1x20'
      - series: 'thin_node_uploads_total{{instance="n", job="worker-nodes", outcome="ok"}}'
        values: '0+1x20'
      - series: 'thin_node_operations_total{{instance="n", job="worker-nodes", method="Get", outcome="refused"}}'
        values: '0+9x20'
    alert_rule_test:
      - {{alertname: RepositoryHangs, eval_time: 8m}}
      - alertname: RepositoryHangs
        eval_time: 12m
        exp_alerts: [{{exp_labels: {{instance: n, job: worker-nodes, repository: r}},
                      exp_annotations: {{summary: r has not answered 1 look-ups on n.}}}}]
      - alertname: UploadsFail
        eval_time: 8m
        exp_alerts: [{{exp_labels: {{instance: n, job: worker-nodes, outcome: failed}},
          exp_annotations: {{summary: "Commits fail on n, since the object store does not take their layers."}}}}]
      - alertname: CommittedLayersWait
        eval_time: 6m
        exp_alerts: [{{exp_labels: {{instance: n, job: worker-nodes}},
          exp_annotations: {{summary: A layer that n committed has not shown in its repository for 1h 1m 40s.}}}}]
      - {{alertname: OperationsFail, eval_time: 15m}}
      - {{alertname: LayersDoNotShow, eval_time: 15m}}
"""


def test_alerts_of_nodes_fire_when_something_is_wrong_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "test.yml").write_text(_FAILURES.format(rules=_MONITORING / "worker-alerts.yml"))
    ended = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
