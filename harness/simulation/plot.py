"""A plot with two logarithmic axes, as an SVG that is read on light and dark pages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

__all__ = ["Curve", "plot"]

_WIDTH: Final = 720
_HEIGHT: Final = 420
_LEFT: Final = 70
_RIGHT: Final = 170
_TOP: Final = 46
_BOTTOM: Final = 52
_COLOURS: Final = ("#c2410c", "#ea9a5b", "#1d4ed8", "#7aa2f7")
_STYLE: Final = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 14px; font-weight: 600; }
.grid { stroke: #d0d7de; stroke-width: 1; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .grid { stroke: #3d444d; } }
"""
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured."""

    label: str
    points: Sequence[tuple[int, int]]
    """Number of layers, and bytes."""


def plot(title: str, curves: Sequence[Curve], *, below: str) -> str:
    """Draw curves.

    Parameters
    ----------
    title
        What stands above.
    curves
        At most four, of two points or more each.
    below
        What the horizontal axis counts; the vertical one counts bytes.
    """
    columns = _decades([x for curve in curves for x, _ in curve.points])
    rows = _decades([y for curve in curves for _, y in curve.points])
    area = _Area(columns, rows)
    parts = [f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>']
    for power in columns:
        x = area.x(10**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{10**power:,}</text>')
    for power in rows:
        y = area.y(10**power)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_bytes(power)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">{escape(below)}</text>')
    for colour, curve in zip(_COLOURS, curves, strict=False):
        places = [(area.x(x), area.y(y)) for x, y in curve.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        x, y = places[-1]
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" style="fill:{colour}">{escape(curve.label)}</text>')
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">\n<style>{_STYLE}</style>\n{inside}\n</svg>\n'
    )


class _Area:
    """Where values are in the drawing."""

    def __init__(self, columns: range, rows: range) -> None:
        self._columns = columns
        self._rows = rows

    def x(self, value: float) -> float:
        """Return the horizontal place of a value."""
        return _LEFT + _share(value, self._columns) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return the vertical place of a value."""
        return _HEIGHT - _BOTTOM - _share(value, self._rows) * (_HEIGHT - _TOP - _BOTTOM)


def _share(value: float, powers: range) -> float:
    return (math.log10(value) - powers[0]) / (powers[-1] - powers[0])


def _decades(values: Sequence[int]) -> range:
    """Return the powers of ten from below the smallest value to above the largest."""
    lowest = math.floor(math.log10(min(values)))
    return range(lowest, max(lowest + 1, math.ceil(math.log10(max(values)))) + 1)


def _bytes(power: int) -> str:
    return f"{10 ** (power % 3)} {_UNITS[power // 3]}"
