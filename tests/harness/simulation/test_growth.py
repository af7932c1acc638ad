import re
from pathlib import Path

from harness.simulation.growth import grow
from harness.simulation.plot import Curve, plot
from services.common.layout import LayerLayout


def test_links_in_the_root_are_what_grows(tmp_path: Path) -> None:
    few, more = grow(tmp_path / "flat", LayerLayout.FLAT, (10, 400))
    # What docs/scale.md calculates with: some hundred bytes for each link. The shelves, 256 at most, are rows as well.
    layers = more.layers - few.layers
    assert 100 < (more.root - few.root) / layers < 200
    assert more.root_expanded > more.root
    assert few.batch.written > few.one.written > 1000


def test_a_plot_has_every_curve_and_point() -> None:
    curves = [Curve("one < two", [(100, 20_000), (100_000, 3_000_000)]), Curve("flat", [(100, 10), (1000, 10)])]
    drawn = plot("Bytes", curves, below="layers")
    assert drawn.count("<polyline ") == 2
    assert drawn.count("<circle ") == 4
    texts = set(re.findall(r">([^<]+)</text>", drawn))
    assert {"one &lt; two", "layers", "100,000", "10 B", "10 MB"} <= texts
