"""`python -m harness.simulation`: grow repositories, print what they take, and draw docs/scale.svg.

It needs neither root nor a network, some minutes, and 2 GB of memory.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from harness.plot import Curve, in_bytes, plot
from harness.simulation.growth import BATCH, Point, grow, index_of, links_of, log_of
from services.common.layout import LayerLayout

__all__: list[str] = []

_FIRST: Final = 100
_LINKS: Final = 1_000_000
_LOGGED: Final = (1_000, 10_000, 100_000)
_INDEXED: Final = (10_000, 100_000, 1_000_000)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(prog="python -m harness.simulation", description=__doc__)
    parser.add_argument("--layers", type=int, default=100_000, help="where to stop (default: 100000)")
    parser.add_argument("--svg", type=Path, help="where the drawing is put")
    chosen = parser.parse_args()
    points = list(_decades(chosen.layers))
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        print("| layout | layers | root catalog | expanded | `.layers/XX` | revision of one | processor | of 100 | |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        grown: dict[LayerLayout, list[Point]] = {layout: [] for layout in LayerLayout}
        for layout, measured in grown.items():
            for point in grow(place / layout.value, layout, points):
                measured.append(point)
                print(_row(point), flush=True)
        print("\n| links | root catalog | expanded |\n|---:|---:|---:|")
        print(f"| {_LINKS:,} | {' | '.join(map(_kilobytes, links_of(_LINKS)))} |", flush=True)
        print("\n| revisions | reference log |\n|---:|---:|")
        for revisions in _LOGGED:
            print(f"| {revisions:,} | {_kilobytes(log_of(revisions))} |", flush=True)
        print("\n| contents | index | processor |\n|---:|---:|---:|")
        for contents in _INDEXED:
            index = index_of(place / f"index-{contents}", contents)
            print(f"| {contents:,} | {_kilobytes(index.size)} | {index.processor:.1f} s |", flush=True)
    if chosen.svg is not None:
        curves = [
            Curve(f"{text}, {layout.value}", [(point.layers, getattr(point, name).written) for point in measured])
            for layout, measured in grown.items()
            for name, text in (("batch", f"{BATCH} layers"), ("one", "one layer"))
        ]
        chosen.svg.write_text(
            plot("What one revision writes", curves, below="layers in the repository", label=in_bytes)
        )


def _decades(last: int) -> Iterator[int]:
    layers = _FIRST
    while layers < last:
        yield layers
        layers *= 10
    yield last


def _row(point: Point) -> str:
    sizes = (point.root, point.root_expanded, point.shelf, point.one.written)
    cells = [*map(_kilobytes, sizes), _milliseconds(point.one.processor)]
    cells += [_kilobytes(point.batch.written), _milliseconds(point.batch.processor)]
    return f"| `{point.layout.value}` | {point.layers:,} | {' | '.join(cells)} |"


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.0f} kB"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


if __name__ == "__main__":
    main()
