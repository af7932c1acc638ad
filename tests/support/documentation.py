"""Holds the documentation of settings to the code."""

import re
from collections.abc import Iterable
from pathlib import Path

from services.common.settings import Settings, variables

__all__ = ["settings_discrepancies", "settings_table"]

_ROW = re.compile(r"^\| `(?P<name>[A-Z0-9_]+)` \|.*$", re.MULTILINE)


def settings_table(settings: type[Settings]) -> list[str]:
    """Write the rows of a Markdown table with the columns variable, type, default and meaning."""
    rows = []
    for variable in variables(settings):
        default = "required" if variable.default is None else f"`{variable.default}`" if variable.default else ""
        kind = variable.type.replace("|", "\\|")
        rows.append(f"| `{variable.name}` | {kind} | {default} | {variable.description} |")
    return rows


def settings_discrepancies(document: Path, groups: Iterable[type[Settings]]) -> list[str]:
    """Compare the rows about settings in a Markdown document with the code, and say what to add and to remove."""
    expected = {row for settings in groups for row in settings_table(settings)}
    found = {match[0] for match in _ROW.finditer(document.read_text())}
    return [f"add: {row}" for row in sorted(expected - found)] + [f"remove: {row}" for row in sorted(found - expected)]
