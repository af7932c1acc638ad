"""Holds the documentation of settings to the code."""

import re
from collections.abc import Iterable
from pathlib import Path
from textwrap import fill

from prometheus_client import CollectorRegistry

from services.common.settings import Settings, variables

__all__ = ["commands_below", "environment_examples", "metrics_table", "settings_discrepancies", "settings_table"]

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


def metrics_table(registry: CollectorRegistry) -> list[str]:
    """Write the rows of a Markdown table with the columns metric, kind, labels and meaning."""
    collectors = registry._names_to_collectors  # noqa: SLF001 - there is no other way to the labels
    rows = []
    for metric in registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = ", ".join(f"`{label}`" for label in getattr(collectors[name], "_labelnames", ()))
        rows.append(f"| `{name}` | {metric.type} | {labels} | {metric.documentation} |")
    return rows


def environment_examples(settings: type[Settings]) -> dict[str, str]:
    """Write what an example file of environment variables says about each setting, by its name."""
    examples = {}
    for variable in variables(settings):
        text = fill(variable.description, 120, initial_indent="# ", subsequent_indent="# ")
        examples[variable.name] = f"{text}\n#{variable.name}={variable.default or ''}\n"
    return examples


def commands_below(document: Path, heading: str) -> str:
    """Return the first block of commands that a document has below a heading, or below another text in it."""
    text = document.read_text()
    assert text.count(heading) == 1, f"{document.name}: {heading}"
    return text.split(heading)[1].split("```sh\n", 1)[1].split("```", 1)[0]
