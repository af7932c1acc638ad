"""Prometheus' configuration, alerts and dashboards name what publisher and worker nodes measure."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.converter.hints.metrics import HintMetrics
from services.converter.metrics import Metrics as ConverterMetrics
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


def _converter() -> CollectorRegistry:
    metrics = ConverterMetrics()
    HintMetrics(metrics.registry)
    return metrics.registry


@pytest.mark.parametrize(
    ("text", "prefix", "registry"),
    [
        pytest.param(_ALERTS, "publisher", Metrics().registry, id="alerts"),
        pytest.param("\n".join(_expressions("publisher")), "publisher", Metrics().registry, id="dashboard"),
        pytest.param(_CONVERTER_ALERTS, "converter", _converter(), id="alerts of the converter"),
        pytest.param("\n".join(_expressions("converter")), "converter", _converter(), id="dashboard of the converter"),
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
                "by (job, standing) (publisher_publishers)",
                "publisher_publish_seconds_bucket",
                "publisher_batch_layers_sum",
                "publisher_fetched_bytes_total",
                "publisher_published_bytes_total",
                "publisher_failures_total",
            ],
        ),
        (
            "converter",
            [
                "converter_oldest_wish_seconds",
                "converter_copies{state",
                "converter_hints_pending",
                "converter_image_seconds_bucket",
                "converter_failures_total",
                "converter_saved_bytes_total",
                "converter_removals_withheld",
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


@pytest.mark.parametrize("name", ["publisher", "converter", "worker"])
def test_prometheus_understands_every_expression_of_the_dashboards(name: str, tmp_path: Path) -> None:
    expressions = [expression.replace("$__rate_interval", "1m") for expression in _expressions(name)]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    ended = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.json")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


_NODE_FAILURES = """
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


_CONVERTER_FAILURES = """
rule_files: [{rules}]
tests:
  - interval: 5m
    input_series:
      - {{series: 'converter_oldest_wish_seconds', values: '0x20 14000+300x20'}}
      - {{series: 'converter_hints_pending', values: '1000x20 1001x20'}}
      - {{series: 'converter_hint_requests_total{{endpoint="good", status="202"}}', values: '0+1x40'}}
      - {{series: 'converter_hint_requests_total{{endpoint="good", status="422"}}', values: '0+1x40'}}
      - {{series: 'converter_hint_requests_total{{endpoint="bad", status="401"}}', values: '0x20 1+1x20'}}
      - {{series: 'converter_hint_requests_total{{endpoint="-", status="401"}}', values: '0+1x40'}}
      - {{series: 'converter_hint_requests_total{{endpoint="-", status="503"}}', values: '0x20 1+1x20'}}
      - {{series: 'converter_polls_total{{registry="good", outcome="done"}}', values: '0+1x40'}}
      - {{series: 'converter_polls_total{{registry="good", outcome="failed"}}', values: '0+1x40'}}
      - {{series: 'converter_polls_total{{registry="never", outcome="failed"}}', values: '0x20 1+1x20'}}
    alert_rule_test:
      - {{alertname: ImagesLate, eval_time: 100m}}
      - {{alertname: HintsWait, eval_time: 100m}}
      - {{alertname: HintsRefused, eval_time: 100m}}
      - {{alertname: HintsNotTaken, eval_time: 100m}}
      - {{alertname: RegistryFails, eval_time: 100m}}
      - alertname: ImagesLate
        eval_time: 135m
        exp_alerts: [{{exp_annotations: {{summary:
          An image has not been what its wish list says for 4h 23m 20s; /v1/status says which and why.}}}}]
      - alertname: HintsWait
        eval_time: 125m
        exp_alerts: [{{exp_annotations: {{summary: 1001 hints have not been looked into; polling goes on.}}}}]
      - alertname: HintsRefused
        eval_time: 140m
        exp_alerts: [{{exp_labels: {{endpoint: bad}}, exp_annotations: {{summary:
          "bad sends hints, and none has been taken for an hour: its secret, or what it sends, is wrong."}}}}]
      - alertname: HintsNotTaken
        eval_time: 140m
        exp_alerts: [{{exp_annotations: {{summary:
          "Webhooks cannot be recorded; the log says why, and polling goes on."}}}}]
      - alertname: RegistryFails
        eval_time: 180m
        exp_alerts: [{{exp_labels: {{registry: never}}, exp_annotations: {{summary:
          "never has answered no poll for an hour; nothing is removed because of it."}}}}]
"""


_PUBLISHER_FAILURES = """
rule_files: [{rules}]
tests:
  - name: what several publishers say of one journal is one alert
    interval: 1m
    input_series:
      - series: 'publisher_publishers{{instance="a", job="publisher", standing="leading"}}'
        values: '1x10 0x20'
      - series: 'publisher_publishers{{instance="b", job="publisher", standing="leading"}}'
        values: '1x10 0x20'
      - series: 'publisher_publishers{{instance="a", job="publisher", standing="gone"}}'
        values: '0x5 1x20'
      - series: 'publisher_publishers{{instance="b", job="publisher", standing="gone"}}'
        values: '0x5 1x20'
      - {{series: 'publisher_refused_layers{{instance="a", job="publisher"}}', values: '3x30'}}
      - {{series: 'publisher_refused_layers{{instance="b", job="publisher"}}', values: '3x30'}}
      - {{series: 'publisher_last_sweep_timestamp_seconds{{instance="a", job="publisher"}}', values: '0+60x300'}}
      - {{series: 'publisher_last_sweep_timestamp_seconds{{instance="b", job="publisher"}}', values: '0x300'}}
    alert_rule_test:
      - {{alertname: NoPublisherLeads, eval_time: 10m}}
      - {{alertname: PublisherGone, eval_time: 5m}}
      - {{alertname: SweepMissing, eval_time: 240m}}
      - alertname: NoPublisherLeads
        eval_time: 14m
        exp_alerts: [{{exp_labels: {{job: publisher}}, exp_annotations: {{summary:
          "Publishers answer, and none leads; nothing is swept, collected or renewed."}}}}]
      - alertname: PublisherGone
        eval_time: 8m
        exp_alerts: [{{exp_labels: {{job: publisher}}, exp_annotations: {{summary:
          "1 publishers have gone without having ended; what they were working on is others' work now."}}}}]
      - alertname: LayersRefused
        eval_time: 6m
        exp_alerts: [{{exp_labels: {{job: publisher}}, exp_annotations: {{summary:
          "3 layers cannot be published as they are, and are not tried again by themselves."}}}}]
"""


@pytest.mark.parametrize(
    ("name", "failures"),
    [
        ("alerts.yml", _PUBLISHER_FAILURES),
        ("worker-alerts.yml", _NODE_FAILURES),
        ("converter-alerts.yml", _CONVERTER_FAILURES),
    ],
)
def test_alerts_fire_when_something_is_wrong_and_only_then(name: str, failures: str, tmp_path: Path) -> None:
    (tmp_path / "test.yml").write_text(failures.format(rules=_MONITORING / name))
    ended = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
