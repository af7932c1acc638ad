"""The result, for people and for programs."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.bench.measure import Row, Target

__all__ = ["closing_note", "table", "write_json"]


def _figure(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:.0f} {unit}"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _verdict(row: Row, target: Target) -> str:
    value = row.reached(target)
    what = f"{_figure(value, row.unit)}, " if target.over is None else f"{value:.2f} of {target.over}, "
    limit = _figure(target.limit, row.unit) if target.over is None else f"{target.limit:g}"
    return f"{what}target {limit}: {'reached' if value <= target.limit else 'MISSED'}"


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out; one line for each subject."""
    lines = [f"{'':<36}{'subject':<20}{'median':>10}{'ratio':>7}   n"]
    for row in rows:
        first = next(iter(row.samples))
        for subject, samples in row.samples.items():
            median = row.median(subject)
            ratio = "" if subject == first else f"{median / row.median(first):.2f}"
            verdicts = "; ".join(_verdict(row, target) for target in row.targets if target.subject == subject)
            name = row.name if subject == first else ""
            line = f"{name:<36}{subject:<20}{_figure(median, row.unit):>10}{ratio:>7}{len(samples):>4}   {verdicts}"
            lines.append(line.rstrip())
    return "\n".join(lines)


def closing_note(rows: Sequence[Row]) -> str:
    """Say which targets are missed, by how much, and what that costs."""
    notes = []
    for row in rows:
        for target in row.targets:
            value = row.reached(target)
            if value <= target.limit:
                continue
            over = value / target.limit - 1
            note = f"{row.name}, {target.subject}: {over:.0%} over its target"
            if target.over is not None:
                cost = row.median(target.subject) - target.limit * row.median(target.over)
                note += f", which costs {_figure(cost, row.unit)} each time"
            notes.append(note)
    if not notes:
        return "Every target is reached."
    return "Targets missed:\n" + "\n".join(f"- {note}" for note in notes)


def _document(rows: Sequence[Row], docker: str) -> dict[str, Any]:
    return {
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "docker": docker},
        "rows": [
            {
                "name": row.name,
                "unit": row.unit,
                "subjects": {
                    subject: {"median": row.median(subject), "samples": samples}
                    for subject, samples in row.samples.items()
                },
                "ratios": {
                    subject: row.median(subject) / row.median(first)
                    for first in list(row.samples)[:1]
                    for subject in list(row.samples)[1:]
                },
                "targets": [
                    {
                        "subject": target.subject,
                        "over": target.over,
                        "limit": target.limit,
                        "value": row.reached(target),
                        "reached": row.reached(target) <= target.limit,
                    }
                    for target in row.targets
                ],
            }
            for row in rows
        ],
    }


def write_json(rows: Sequence[Row], *, docker: str, destination: Path) -> None:
    """Write everything, every single figure included."""
    destination.write_text(json.dumps(_document(rows, docker), indent=2) + "\n")
