"""The documentation of the converter names what there is."""

import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_TEXT = (_ROOT / "docs" / "converter.md").read_text()


def test_every_alert_is_explained_in_its_order() -> None:
    alerts = re.findall(r"alert: (\w+)", (_ROOT / "monitoring" / "converter-alerts.yml").read_text())
    assert re.findall(r"^\| `([A-Z]\w+)` \| ", _TEXT, re.MULTILINE) == alerts


def test_settings_that_are_named_exist() -> None:
    settings = (_ROOT / "docs" / "SETTINGS.md").read_text()
    named = set(re.findall(r"`((?:CONVERTER|REGISTRY)_[A-Z_]+)", _TEXT))
    assert named
    assert [
        name for name in sorted(named) if f"| `{name}` |" not in settings and f"`{name[:-5]}`" not in settings
    ] == []
