"""A plot, as an SVG that is read on light and dark pages. An axis is logarithmic where values differ by much."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final

__all__ = ["Curve", "in_bytes", "in_thousands", "plot"]

_WIDTH: Final = 720
_HEIGHT: Final = 420
_LEFT: Final = 70
_RIGHT: Final = 170
_TOP: Final = 46
_BOTTOM: Final = 52
_APART: Final = 15
"""Least distance of two labels, one above the other."""
_WIDE: Final = 30
"""From this ratio of the largest value to the smallest on, an axis is logarithmic."""
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
    points: Sequence[tuple[float, float]]
    """From left to right."""


def in_thousands(value: float) -> str:
    """Write a number."""
    return f"{value:,.10g}"


def in_bytes(value: float) -> str:
    """Write a power of ten, of bytes."""
    power = round(math.log10(value))
    return f"{10 ** (power % 3)} {_UNITS[power // 3]}"


def plot(
    title: str, curves: Sequence[Curve], *, below: str, label: Callable[[float], str] = in_thousands, beside: str = ""
) -> str:
    """Draw curves.

    Parameters
    ----------
    title
        What stands above.
    curves
        At most four.
    below
        What the horizontal axis counts.
    label
        Writes a value of the vertical axis.
    beside
        What the vertical axis counts, if the title does not say it.
    """
    across = _axis([x for curve in curves for x, _ in curve.points])
    upward = _axis([y for curve in curves for _, y in curve.points])
    parts = [f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>']
    for value in across.marks:
        x = _x(across, value)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{in_thousands(value)}</text>'
        )
    for value in upward.marks:
        y = _y(upward, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label(value)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">{escape(below)}</text>')
    if beside:
        parts.append(f'<text x="{_LEFT}" y="{_TOP - 6}">{escape(beside)}</text>')
    ends = _apart([_y(upward, curve.points[-1][1]) for curve in curves])
    for colour, curve, end in zip(_COLOURS, curves, ends, strict=False):
        places = [(_x(across, x), _y(upward, y)) for x, y in curve.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        x, _ = places[-1]
        parts.append(f'<text x="{x + 8:.1f}" y="{end + 4:.1f}" style="fill:{colour}">{escape(curve.label)}</text>')
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">\n<style>{_STYLE}</style>\n{inside}\n</svg>\n'
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where values are between the two ends of a line."""

    marks: Sequence[float]
    """Values that are written beside it, rising; the first and the last are its ends."""
    logarithmic: bool

    def share(self, value: float) -> float:
        """Return a value's place: 0 at the lower end, 1 at the upper one."""
        first, last = self.marks[0], self.marks[-1]
        if self.logarithmic:
            return math.log10(value / first) / math.log10(last / first)
        return (value - first) / (last - first)


def _x(axis: _Axis, value: float) -> float:
    return _LEFT + axis.share(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: _Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.share(value) * (_HEIGHT - _TOP - _BOTTOM)


def _axis(values: Sequence[float]) -> _Axis:
    lowest, highest = min(values), max(values)
    if lowest > 0 and highest / lowest >= _WIDE:
        bottom, top = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
        return _Axis([10.0**power for power in range(bottom, top + 1)], logarithmic=True)
    # From 0 on, in steps of 1, 2 or 5 times a power of ten, of which there are at most six.
    magnitude = 10.0 ** math.floor(math.log10(highest or 1) - 1)
    step = next(factor * magnitude for factor in (1, 2, 5, 10, 20, 50) if highest <= 6 * factor * magnitude)
    return _Axis([step * number for number in range(max(1, math.ceil(highest / step)) + 1)], logarithmic=False)


def _apart(heights: Sequence[float]) -> list[float]:
    """Move labels down as far as they would cover each other."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = list(heights)
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + _APART)
    return moved
