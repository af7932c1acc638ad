"""The documentation of worker nodes names what there is: metrics, alerts, settings, events of the log, headings."""

import re
from pathlib import Path

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import variables
from services.graphdriver.settings import GraphDriverSettings
from services.snapshotter.settings import SnapshotterSettings

_ROOT = Path(__file__).parents[2]
_WORKER = (_ROOT / "docs" / "worker.md").read_text()
_SOURCES = "".join(
    path.read_text()
    for room in ("node", "graphdriver", "snapshotter")
    for path in (_ROOT / "services" / room).rglob("*.py")
)


def test_every_alert_is_explained_in_its_order() -> None:
    alerts = re.findall(r"alert: (\w+)", (_ROOT / "monitoring" / "worker-alerts.yml").read_text())
    assert re.findall(r"^\| `([A-Z]\w+)` \| ", _WORKER, re.MULTILINE) == alerts


def test_every_setting_that_is_named_exists() -> None:
    groups = (GraphDriverSettings, SnapshotterSettings, ObjectStoreSettings, ArchiveLimits)
    known = {variable.name for group in groups for variable in variables(group)}
    named = set(re.findall(r"\b(?:GRAPHDRIVER|SNAPSHOTTER|LAYER_STORE|LAYER_LIMIT)_[A-Z_]+[A-Z]\b", _WORKER))
    assert named
    assert {name.removesuffix("_FILE") for name in named} <= known


def test_every_event_that_is_named_is_logged() -> None:
    (table,) = re.findall(r"^\| event \|.*\n\|.*\n((?:\|.*\n)+)", _WORKER, re.MULTILINE)
    events = [event for row in table.splitlines() for event in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert events
    assert [event for event in events if f'"{event}"' not in _SOURCES] == []
